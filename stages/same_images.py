"""Whether a data set holds the images of a source, and what to do about a name that another one has."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from rela.errors import ChoiceError
from rela.pipeline.fingerprint import ordered_digest
from rela.sources.pixels import colour_in_words, colour_of
from rela.sources.source import ImageSource
from rela.stages.conversion import SOURCE_SETTINGS, command
from rela.stages.display import progress_bar
from rela.stages.requests import Convert
from rela.stages.settings import ConvertSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.workspace import Workspace, free_name

STAGE_VERSION = 2  # 1: alpha was dropped, EXIF ignored, every value of 16 bits divided by 257


def is_older(existing: DataSet) -> bool:
    """Whether an earlier version made it, which stored other pixels of the same images."""
    return bool(existing.manifest.parameters.get("stage_version") != STAGE_VERSION)


def deciding(settings: ConvertSettings, images: ImageSource) -> dict[str, Any]:
    """The settings that affect the stored data; the seed only if it is used."""
    parameters = {"stage_version": STAGE_VERSION, **asdict(settings)}
    parameters["val_fraction"] = images.val_fraction
    for name in ("on_bad_image", *SOURCE_SETTINGS):
        del parameters[name]
    if settings.max_images is None:
        del parameters["max_images"]  # which older data sets do not have
        if images.val_fraction == 0 and settings.write_mode != "proportion":
            parameters["seed"] = None
    parameters["background"] = colour_in_words(colour_of(settings.background))
    return parameters


def may_be_of(existing: DataSet, images: ImageSource, settings: ConvertSettings) -> bool:
    """Whether it may, judged without reading the files."""
    if existing.manifest.parameters != deciding(settings, images):
        return False
    if existing.content.class_names != images.class_names or set(existing.splits) != set(
        images.splits
    ):
        return False
    num_bad = len(existing.content.bad_images)
    if existing.num_images() + num_bad != sum(map(len, images.splits.values())):
        return False
    return not (num_bad and settings.on_bad_image == "stop")


def source_digest(images: ImageSource) -> str:
    """One digest of split, path, class and content of all images, which are read."""
    digests: dict[str, dict[str, str]] = {}
    with ThreadPoolExecutor() as pool:
        for split, samples in images.splits.items():
            found = pool.map(lambda s: s.sha256(images.root), samples)
            digests[split] = {}
            with progress_bar(len(samples), f"compare {split}", "img", delay=1, leave=False) as bar:
                for sample, digest in zip(samples, found, strict=True):
                    digests[split][sample.path] = digest
                    bar.update()
    return sources_digest(images, digests)


def sources_digest(images: ImageSource, digests: dict[str, dict[str, str]]) -> str:
    """One digest of split, path, class and content of all source files, bad images included."""
    return ordered_digest(
        hashlib.sha256(
            f"{split}\0{s.path}\0{s.label}\0{digests[split][s.path]}".encode(
                "utf-8", "surrogateescape"
            )
        ).hexdigest()
        for split, samples in images.splits.items()
        for s in samples
    )


def taken(existing: DataSet, request: Convert) -> ChoiceError:
    """The error for a name that another data set has."""
    return ChoiceError(
        f"{existing.path} already holds a data set made from other images or with other options; "
        f"choose another --name, or replace it with `{command(request, replace=True)}`"
    )


def older(existing: DataSet, remedy: str) -> ChoiceError:
    """The error for a name that such a data set has."""
    return ChoiceError(
        f"data set {existing.name} was made by an earlier version of rela, which dropped alpha, ignored "
        "the rotation in EXIF and took 12 bits for 16; it stays usable by its name. To convert the images "
        f"again: {remedy}"
    )


def again(existing: DataSet, workspace: Workspace, request: Convert) -> str:
    """The command that converts the same images under a free name."""
    whole = request.val_fraction is None and "val" not in existing.splits
    also = "; add --val-fraction 0 to have them all in train, as before" if whole else ""
    return f"`{command(request, name=free_name(existing.name, workspace.has_dataset))}`{also}"
