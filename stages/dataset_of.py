"""Images → the data set that they are already, or a new one."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from rela.errors import ChoiceError, RelaError, one_line
from rela.options import part_of
from rela.pipeline import Say
from rela.sources import default_name
from rela.sources.source import ImageSource, Sample
from rela.stages.conversion import command, request_of
from rela.stages.convert import convert, format_result, read_source
from rela.stages.requests import Convert
from rela.stages.same_images import (
    again,
    deciding,
    is_older,
    may_be_of,
    older,
    source_digest,
    taken,
)
from rela.stages.settings import ConvertSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.workspace import Workspace, free_name, open_as, slug


def dataset_of_images(workspace: Workspace, which: str | Path, say: Say = print) -> DataSet:
    """The source `which`, converted.

    An existing data set of the same files and default options is reused, whatever its name. Raises
    ChoiceError if it does not exist, or if its name is taken by another data set.
    """
    source = Path(which)
    if not source.exists():
        if isinstance(which, Path) or "/" in which:
            raise ChoiceError(f"{which}: no such path, and no data set has that name")
        return workspace.dataset(which)  # raises, listing those that exist
    for settings in (ConvertSettings(), ConvertSettings(val_fraction=0.0)):
        found = find_same_files(workspace, read_source(source, settings), settings)
        if found is not None:
            say(f"the images in {source} are data set {found.name}")
            return found
    name = slug(default_name(source))
    if workspace.has_dataset(name):
        existing = workspace.dataset(name)
        if is_older(existing):
            raise older(existing, again(existing, workspace, Convert(source)))
        raise ChoiceError(
            f"{workspace.datasets_dir / name} was made from other images than {one_line(str(source))}, or "
            f"with other options; embed it by its name, {name}, or convert these images under another name: "
            f"`{command(Convert(source), name=free_name(name, workspace.has_dataset))}`"
        )
    result = convert(workspace, Convert(source), say)
    say(format_result(result))
    return result.artifact


def find_dataset(
    workspace: Workspace, images: ImageSource, settings: ConvertSettings, name: str
) -> DataSet | None:
    """The data set that `convert` would reuse, compared by settings and file names only.

    File contents, which `convert` also compares, are not read. Raises ChoiceError if `name` is taken by
    another data set.
    """
    existing = open_as(DataSet, workspace.datasets_dir / name)
    if existing is None:
        return None
    if is_older(existing):
        raise older(existing, "give the job another name")
    if not _has_files(existing, images, settings):
        raise taken(existing, Convert(images.root, name=name, **vars(settings)))
    return existing


def find_same_names(
    workspace: Workspace, images: ImageSource, settings: ConvertSettings
) -> DataSet | None:
    """The data set, of any name, of files with these names in this folder; contents are not read."""
    root = str(images.root.resolve())
    found = (d for d in workspace.datasets() if d.source == root)
    return next((each for each in found if _has_files(each, images, settings)), None)


def _has_files(existing: DataSet, images: ImageSource, settings: ConvertSettings) -> bool:
    """Whether a data set has these settings and files of these names."""
    if existing.manifest.parameters != deciding(settings, images):
        return False
    if existing.splits.keys() != images.splits.keys():
        return False
    left_out = {path for path, _ in existing.content.bad_images}
    there = {s: {row["path"] for row in existing.index(s)} for s in images.splits}
    named = {s: {sample.path for sample in of} for s, of in images.splits.items()}
    if images.val_fraction:  # copies of an image may have been moved to the other split
        there, named = ({"": set().union(*each.values())} for each in (there, named))
    return all(there[split] == named[split] - left_out for split in named)


def find_same_files(
    workspace: Workspace, images: ImageSource, settings: ConvertSettings
) -> DataSet | None:
    """The existing data set, under any name, that converting `images` would give.

    Bad images that were skipped count as part of it.
    """
    lenient = replace(settings, on_bad_image="skip")
    alike = [d for d in workspace.datasets() if may_be_of(d, images, lenient)]
    if not alike:
        return None
    digest = source_digest(images)
    return next((d for d in alike if d.content.sources_sha256 == digest), None)


def say_if_changed(workspace: Workspace, dataset: DataSet, source: Path, say: Say) -> None:
    """Say whether `source`, which has the name of `dataset`, is not what that was made from, or has changed.

    Only images whose files changed since then are read.
    """
    shown, name = one_line(str(source)), dataset.name
    made_from = dataset.source or ""
    if made_from not in (str(source.resolve()), str(source.resolve().parent)):
        say(
            f"data set {name} was made from {one_line(made_from)}, not from ./{shown}; write ./{shown} for "
            "the images there"
        )
        return
    try:
        made = request_of(dataset)
        settings = replace(part_of(made, ConvertSettings), val_fraction=0.0)
        images = read_source(list(map(Path, made.sources)), settings, compare=False)
    except RelaError as error:
        say(f"cannot check whether {shown} has changed since data set {name} was made: {error}")
        return
    changes = _changes(dataset, images)
    if changes:
        remedy = f"`{command(replace(made, source=source), name=free_name(name, workspace.has_dataset))}`"
        say(
            f"warning: {shown} has changed since data set {name} was made from it: {', '.join(changes)}; the "
            f"data set is used unchanged. {remedy} converts the current images"
        )


def _changes(dataset: DataSet, images: ImageSource) -> list[str]:
    """In words; files that were not touched since the conversion began count as the same."""
    was = {row["path"]: row["source_sha256"] for s in dataset.splits for row in dataset.index(s)}
    bad = {path for path, _ in dataset.content.bad_images}
    now = {sample.path: sample for of in images.splits.values() for sample in of}
    made = dataset.facts.provenance
    began = (made.finished_unix_seconds or made.seconds) - made.seconds
    touched = [s for path, s in now.items() if path in was and _touched(images.root, s) >= began]
    with ThreadPoolExecutor() as pool:
        digests = pool.map(lambda sample: sample.sha256(images.root), touched)
        changed = sum(was[s.path] != digest for s, digest in zip(touched, digests, strict=True))
    counts = {
        "new": len(now.keys() - was.keys() - bad),
        "gone": len(was.keys() - now.keys()),
        "changed": changed,
    }
    return [f"{count:,} images {what}" for what, count in counts.items() if count]


def _touched(root: Path, sample: Sample) -> float:
    """When the file with the image was last written, replaced or renamed, in seconds since 1970."""
    file = root / sample.path if sample.place is None else getattr(sample.place, "path", root)
    try:
        return os.stat(file).st_ctime
    except OSError:
        return math.inf
