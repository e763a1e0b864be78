"""The commands that reproduce a run, from its records."""

import shlex

from rela.errors import RelaError
from rela.options import option_words
from rela.stages.conversion import convert_words, request_of
from rela.stages.priors.again import embed_commands
from rela.stages.priors.records import priors_of
from rela.stages.settings import EmbedSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.run import Run
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import WHERE_TO_RUN, TrainSettings


def commands_for(workspace: Workspace, run: Run) -> list[str]:
    """`rela convert`, `rela embed` and `rela train` with every setting that is not the default.

    Resolved settings are explicit, so that changed defaults of a later version have no effect.
    """
    name, prior = run.content.dataset, run.content.prior
    train = ["rela", "train", name, "--prior", prior or "none"]
    train += option_words(TrainSettings, vars(run.settings), {"prior", *WHERE_TO_RUN})
    try:
        dataset = workspace.dataset(name)
    except RelaError:
        return [shlex.join(train)]  # the data set is gone
    commands = [convert_words(request_of(dataset)), *_embed(workspace, run, dataset), train]
    return [shlex.join(words) for words in commands]


def _embed(workspace: Workspace, run: Run, dataset: DataSet) -> list[list[str]]:
    key = run.settings.prior
    known = workspace.representations()
    made = next((a for a in known if a.fingerprint == key), None)
    if run.content.prior in (None, "random") or made is None:
        return []
    how = EmbedSettings(crops=made.content.crops, dtype=made.dtype)
    return embed_commands(workspace, dataset, priors_of(made), how)
