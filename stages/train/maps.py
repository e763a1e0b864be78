"""The maps that a training learns from, beside the vectors of the same prior."""

from typing import TYPE_CHECKING

from rela.errors import ChoiceError, instead
from rela.options import closest
from rela.priors import PriorIdentity
from rela.stages.embed.format import FORMAT_FILE
from rela.stages.priors.again import embed_command
from rela.stages.priors.records import priors_of
from rela.stages.settings import EmbedSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import REPRESENTATIONS_FILE, Representations
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

if TYPE_CHECKING:
    from rela.training.maps import MapTargets


def chosen_maps(
    workspace: Workspace,
    dataset: DataSet,
    settings: TrainSettings,
    representations: Representations | None,
) -> Representations | None:
    """With --dense, the maps of the same images and crops by a prior of `representations`.

    Those of --maps, else those of its layer, else of any. Raises ChoiceError, with the command that makes
    them, or their names, unless there is one.
    """
    if representations is None:
        return None
    if not settings.dense:
        if settings.maps is not None:
            raise instead(ChoiceError("--maps requires --dense; add its weight"), dense=1)
        return None
    models = {_model(identity) for identity, _ in priors_of(representations)}
    crops = representations.content.crops
    found = [
        maps
        for maps in workspace.maps(representations.images_sha256)
        if maps.content.crops == crops and _model(priors_of(maps)[0][0]) in models
    ]
    if settings.maps is not None and found:
        names = [maps.name for maps in found]
        found = [maps for maps in found if settings.maps in (maps.name, maps.fingerprint)]
        if not found:
            raise ChoiceError(
                f"--maps {settings.maps}: no such maps; {closest(settings.maps, names)}"
            )
    keys = [identity.key() for identity, _ in priors_of(representations)]
    same_layer = [maps for maps in found if priors_of(maps)[0][0].key() in keys]
    found = same_layer or found
    if len(found) == 1:
        return found[0]
    if found:
        largest = max(found, key=lambda maps: maps.content.map)
        error = ChoiceError(
            f"{len(found)} maps could be used for --dense; choose one with --maps: "
            f"{', '.join(maps.name for maps in found)}; those of most positions"
        )
        raise instead(error, maps=largest.name)
    how = EmbedSettings(crops=crops, dtype=representations.dtype)
    command = embed_command(workspace, dataset, priors_of(representations)[:1], how)
    raise ChoiceError(
        f"--dense {settings.dense:g}: no maps of prior {representations.prior.name} are embedded for data "
        f"set {dataset.name}; run `{command} --dense 7` first"
    )


def _model(identity: PriorIdentity) -> tuple[str, str, int]:
    return identity.arch, identity.weights_sha256, identity.image_size


def open_map_targets(maps: Representations, num_images: int) -> "MapTargets":
    """The maps of an artifact, mapped from the disk; raises CorruptArtifactError if they are damaged."""
    from rela.pipeline.files import read_regular
    from rela.training.maps import MapFormat, open_maps

    format_ = MapFormat.from_bytes(read_regular(maps.sound_file(FORMAT_FILE)))
    identity = priors_of(maps)[0][0]
    file = maps.sound_file(REPRESENTATIONS_FILE)
    return open_maps(file, format_, identity.preprocessing, num_images)
