"""The prior that messages propose: one that works here."""

import math

from rela.models.own_code.networks import MODULE_PREFIX
from rela.priors import prefix_of
from rela.priors.untrained import PREFIX as UNTRAINED_PREFIX
from rela.stages.priors.again import embed_command
from rela.stages.priors.list import models_on_disk
from rela.stages.priors.records import priors_of, recorded_weights
from rela.stages.settings import EmbedSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.workspace import Workspace

_USUAL = "resnet18"


def suggested_embedding(dataset: DataSet, split: str = "train", crops: int = 0) -> str:
    """`rela embed …` with the trained prior that was embedded last, else with one whose weights are on disk.

    Else with ResNet-18, which is downloaded.
    """
    workspace = Workspace.around(dataset)
    made = sorted(
        workspace.representations(),
        key=lambda each: each.facts.provenance.finished_unix_seconds or -math.inf,
    )
    how = EmbedSettings(crops=crops)
    for representations in reversed(made):
        (identity, run), *others = priors_of(representations)
        if (
            others
            or run is not None
            or prefix_of(identity.name) in (UNTRAINED_PREFIX, MODULE_PREFIX)
        ):
            continue
        path = recorded_weights(workspace, identity)
        if prefix_of(identity.name) if path is None else path.is_file():
            return embed_command(workspace, dataset, [(identity, None)], how, split)
    on_disk = models_on_disk(workspace)
    name = _USUAL if _USUAL in on_disk else next(iter(on_disk), _USUAL)
    more = f" --crops {crops}" if crops else ""
    more += f" --split {split}" if split != "train" else ""
    return f"rela embed {dataset.name} --prior {name}{more}"
