"""The commands that reproduce a run, from its records."""

import shlex

from rela.errors import RelaError
from rela.options import option_words
from rela.priors.prior import JOINT, POOLED, Combination
from rela.stages.settings import ConvertSettings
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
    commands = [*_convert(workspace, name), *_embed(workspace, run, name), train]
    return [shlex.join(words) for words in commands]


def _convert(workspace: Workspace, name: str) -> list[list[str]]:
    try:
        dataset = workspace.dataset(name)
    except RelaError:
        return []  # it is gone
    source = dataset.source or "path/to/images"
    flags = option_words(ConvertSettings, dataset.manifest.parameters)
    return [["rela", "convert", source, "--name", name, *flags]]


def _embed(workspace: Workspace, run: Run, name: str) -> list[list[str]]:
    key = run.settings.prior
    known = workspace.representations()
    made = next((a for a in known if a.fingerprint == key), None)
    if run.content.prior in (None, "random") or made is None:
        return []
    joint = isinstance(made.prior, Combination)
    layer = POOLED if isinstance(made.prior, Combination) else made.prior.layer
    names = made.prior.name.split(JOINT) if joint else [made.prior.name]
    words = ["rela", "embed", name]
    for one in names:
        words += ["--prior", one.removesuffix(f"@{layer}")]
    words += ["--layer", layer] if layer != POOLED else []
    words += ["--crops", str(made.content.crops)] if made.content.crops else []
    return [words]
