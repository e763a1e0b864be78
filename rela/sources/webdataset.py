"""WebDataset shards: tars in which `KEY.jpg` is an image and `KEY.cls` or `KEY.json` its label.

Shards must be uncompressed: workers read the bytes of an image by offset, and nothing is extracted.
"""

import functools
import gzip
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tarfile import TarInfo
from typing import IO

from rela.errors import DataError, one_line
from rela.sources.file_patterns import has_suffix, list_files, total_bytes, typical_suffix
from rela.sources.labels import Label, Labelled, choose_splits, find_classes, named_split
from rela.sources.source import FileRange, ImageSource, ListingProgress, SourceOptions, Unusable
from rela.sources.splits.tree import image_suffixes
from rela.sources.tar_archives import is_plain_file, leads_out, open_tar_file, walk_tar

WHAT = "WebDataset shards (.tar files, their folder or a pattern)"
SUFFIXES = (".tar", ".tar.gz", ".tgz")  # compressed shards are refused with the reason
OPTIONS: tuple[str, ...] = ()
_LABEL_KEYS = ("label", "class")  # of a .json
_LARGEST_LABEL_BYTES = 1 << 20


def recognises(path: Path) -> bool:
    """Whether `path` is a .tar, a pattern of .tar files, or a folder with .tar files and no images."""
    return any(has_suffix(path, suffix) for suffix in SUFFIXES) or (
        path.is_dir() and typical_suffix(path) == ".tar"
    )


def read(path: Path, options: SourceOptions, on_progress: ListingProgress) -> ImageSource:
    """The samples of all shards, ordered by shard name, then as stored.

    The name or folder of a shard determines its split; without a `train` split, all shards are train.
    """
    root, shards = list_files(path, ".tar")
    by_split: dict[str, list[Path]] = {}
    for shard in shards:
        by_split.setdefault(named_split(shard.relative_to(root)), []).append(shard)
    chosen, ignored = choose_splits(one_line(str(path)), by_split)
    num_bytes = sum(total_bytes(by_split[name]) for name in chosen.values())
    stray: list[str] = []
    splits: dict[str, list[Labelled]] = {}
    for split, name in chosen.items():
        splits[split] = []
        with ThreadPoolExecutor() as pool:
            read_shard = functools.partial(
                _read_shard, root, advance=lambda more: on_progress(more, num_bytes)
            )
            for found, strays in pool.map(read_shard, by_split[name]):
                splits[split] += found
                stray += strays
    class_names, samples = find_classes(path, splits)
    return ImageSource(
        root, class_names, samples, chosen.get("val", ""), stray, ignored_splits=ignored
    )


@dataclass(slots=True)
class _Sample:
    """The members of one key."""

    image: Labelled | None = None
    label: Label = None
    label_from: str = ""


def _read_shard(
    root: Path, shard: Path, advance: Callable[[int], None]
) -> tuple[list[Labelled], list[str]]:
    """(images in the order of a shard, keys without an image); calls `advance` with the bytes passed."""
    samples: dict[str, _Sample] = {}
    at = 0
    name = str(shard.relative_to(root))
    with open_tar_file(shard) as file:
        for member, key, suffix in _fields(file, shard):
            advance(member.offset_data - at)
            at = member.offset_data
            sample = samples.setdefault(key, _Sample())
            if f".{suffix}" in image_suffixes():
                if sample.image is not None:
                    raise DataError(
                        f"{one_line(str(shard))} has two images with the key {key!r}; keys must be unique"
                    )
                sample.image = Labelled(f"{name}/{member.name}", None, _place(shard, member))
            elif suffix in ("cls", "json") and sample.label_from != "cls" and is_plain_file(member):
                sample.label, sample.label_from = _label(file, shard, member, suffix), suffix
    advance(total_bytes([shard]) - at)
    images = [Labelled(s.image.path, s.label, s.image.place) for s in samples.values() if s.image]
    return images, [f"{name}/{key}.*" for key, s in samples.items() if s.image is None]


def _fields(file: IO[bytes], shard: Path) -> Iterator[tuple[TarInfo, str, str]]:
    """(member, key, suffix) of every member; the key ends at the first dot of the file name."""
    if isinstance(file, gzip.GzipFile):
        raise DataError(
            f"{one_line(str(shard))} is compressed, but images are read by their offset in it; "
            "decompress it with gunzip"
        )
    for member in walk_tar(file, shard):
        folder, slash, base = member.name.removeprefix("./").rpartition("/")
        stem, _, suffix = base.partition(".")
        if stem and not member.isdir() and suffix:
            yield member, folder + slash + stem, suffix.lower()


def _place(shard: Path, member: TarInfo) -> FileRange | Unusable:
    if leads_out(member.name):
        return Unusable("its name leads out of the archive")
    if not is_plain_file(member):
        return Unusable("no regular file in its archive")
    return FileRange(str(shard), member.offset_data, member.size)


def _label(file: IO[bytes], shard: Path, member: TarInfo, suffix: str) -> Label:
    where = one_line(f"{shard}/{member.name}")
    if member.size > _LARGEST_LABEL_BYTES:
        raise DataError(f"{where} claims {member.size:,} bytes, too many for a label")
    file.seek(member.offset_data)
    content = file.read(member.size)
    try:
        if suffix == "cls":
            return content.decode("utf-8").strip() or None
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not valid {'UTF-8' if suffix == 'cls' else 'JSON'}") from error
    if isinstance(document, dict):
        for key in _LABEL_KEYS:
            value = document.get(key)
            if isinstance(value, int | str) and not isinstance(value, bool):
                return value if isinstance(value, int) else value.strip() or None
    return None
