"""Folders of images → splits of (path, class) in a fixed order, without opening a file.

Accepted layouts, where `.` is the given folder:

- `./CLASS/**/image`: one folder per class, one split;
- `./train/CLASS/**`, `./val/CLASS/**` (or `test`, or `valid`): two splits, one class list;
- `./image`: a flat folder without labels (also as `./train/image`).

Folders written by rela, such as a report among its images, are skipped.
"""

import functools
import os
from dataclasses import dataclass
from pathlib import Path

from rela.errors import DataError, UnavailableError, one_line
from rela.sources.image_file import NOT_PICTURES
from rela.sources.labels import VAL_NAMES, quoted_classes
from rela.sources.source import ImageSource, ListingProgress, Sample, SourceOptions

WHAT = "a folder of class folders or images"
SUFFIXES: tuple[str, ...] = ()
OPTIONS: tuple[str, ...] = ()
_MARK = ".rela-output"


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Lower-case suffixes of every raster format that the installed Pillow opens."""
    from PIL import Image

    formats = Image.registered_extensions()
    return frozenset(s for s, f in formats.items() if f in Image.OPEN and f not in NOT_PICTURES)


def is_image_name(name: str) -> bool:
    """Whether it has the suffix of an image format."""
    return os.path.splitext(name)[1].lower() in image_suffixes()  # noqa: PTH122


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a folder or a link to one; true for paths too long to stat, false for a link loop."""
    return entry.is_dir(follow_symlinks=False) or os.path.isdir(entry.path)  # noqa: PTH112


def make_output_folder(folder: Path) -> None:
    """Create `folder` with a mark; an existing folder gets none, because it may hold images."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK).touch()


def is_output_folder(folder: Path) -> bool:
    """Whether it was made by `make_output_folder`."""
    # unlike Path.is_file, false for a folder that cannot be read
    return os.path.isfile(folder / _MARK)  # noqa: PTH113


def recognises(path: Path) -> bool:
    """Any folder; `read` finds out whether it holds images."""
    return path.is_dir()


def read(path: Path, options: SourceOptions, on_progress: ListingProgress) -> ImageSource:
    """The images that `scan` finds."""
    return scan(path)


def scan(root: Path) -> ImageSource:
    """List the images below `root`, ordered by class name, then by path.

    Raises DataError if there is no image, if val has a class that train lacks, or if only one split has
    class folders.
    """
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DataError(f"{root}: found {found}, expected a folder of class folders")
    split_roots = _split_roots(root)
    listings = {split: _list_split(root, path) for split, path in split_roots.items()}
    labelled = {split: listing for split, listing in listings.items() if listing.classes}
    if labelled and len(labelled) != len(listings):
        flat = next(iter(set(listings) - set(labelled)))
        raise DataError(
            f"{split_roots[flat]} holds no class folders while the other split does; "
            "give both splits the same layout"
        )
    class_names = sorted(listings["train"].classes)
    for split, listing in listings.items():
        unknown = sorted(set(listing.classes) - set(class_names))
        if unknown:
            raise DataError(
                f"{split_roots[split]} has {quoted_classes(unknown)}, which "
                f"{split_roots['train']} lacks; train has {quoted_classes(class_names)}. "
                "Rename or move the folder so that both splits have the same classes"
            )
    number = {name: i for i, name in enumerate(class_names)}
    splits = {
        split: [
            Sample(path, number[name])
            for name in class_names
            for path in listing.classes.get(name, [])
        ]
        if class_names
        else [Sample(path, -1) for path in listing.flat]
        for split, listing in listings.items()
    }
    if not splits["train"]:
        raise DataError(
            f"{split_roots['train']} holds no images; expected files such as CLASS/image.jpg, in any "
            "format that Pillow opens"
        )
    return ImageSource(
        root=root,
        class_names=class_names,
        splits=splits,
        val_name=f"{split_roots['val'].name}/" if "val" in split_roots else "",
        stray_files=sorted(path for listing in listings.values() for path in listing.stray),
        empty_classes=sorted(path for listing in listings.values() for path in listing.empty),
    )


@dataclass(frozen=True)
class _Listing:
    classes: dict[str, list[str]]
    flat: list[str]
    stray: list[str]
    empty: list[str]


def _split_roots(root: Path) -> dict[str, Path]:
    train = root / "train"
    if not train.is_dir():
        return {"train": root}
    for name in VAL_NAMES:
        if (root / name).is_dir():
            return {"train": train, "val": root / name}
    folders = [p for p in sorted(root.iterdir()) if p.is_dir() and p != train]
    beside = (p for p in folders if not p.name.startswith(".") and not is_output_folder(p))
    if any(_walk(root, p, []) for p in beside):
        return {"train": root}  # `train` is a class
    return {"train": train}


def _list_split(source: Path, split_root: Path) -> _Listing:
    """Images of one split. Images beside class folders are stray, those of a flat folder are not."""
    flat: list[str] = []
    stray: list[str] = []
    classes: dict[str, list[str]] = {}
    empty: list[str] = []
    for entry in reversed(_entries(split_root)):
        if entry.name.startswith("."):
            continue
        relative = os.path.relpath(entry.path, source)
        if is_folder(entry):
            if is_output_folder(Path(entry.path)):
                continue
            images = _walk(source, Path(entry.path), stray)
            if images:
                classes[entry.name] = images
            else:
                empty.append(relative)
        elif is_image_name(entry.name):
            flat.append(relative)
        else:
            stray.append(relative)
    if classes:
        return _Listing(classes, [], stray + flat, empty)
    return _Listing({}, flat, stray, empty)


def _walk(source: Path, folder: Path, stray: list[str]) -> list[str]:
    """Sorted image paths below `folder`; other files go to `stray`. Linked folders are visited once."""
    images: list[str] = []
    seen = {_identity(parent) for parent in folder.absolute().parents}  # a link upwards is a loop
    waiting = [str(folder)]  # no recursion: folders may be nested more than a thousand deep
    while waiting:
        parent = waiting.pop()
        if _identity(parent) in seen:
            continue
        seen.add(_identity(parent))
        for entry in _entries(parent):
            if entry.name.startswith("."):
                continue
            if is_folder(entry):
                waiting.append(entry.path)
            else:
                relative = os.path.relpath(entry.path, source)
                (images if is_image_name(entry.name) else stray).append(relative)
    return sorted(images)


def _identity(folder: str | Path) -> tuple[int, int]:
    try:
        status = os.stat(folder)
    except OSError as error:
        raise _unreadable(error) from error
    return status.st_dev, status.st_ino


def _entries(folder: str | Path) -> "list[os.DirEntry[str]]":
    """Entries of a folder in reverse order of names, for a stack."""
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> UnavailableError:
    return UnavailableError(f"{one_line(str(error.filename))} cannot be read: {error.strerror}")
