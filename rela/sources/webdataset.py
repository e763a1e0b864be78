"""WebDataset shards: tars in which `KEY.jpg` is an image and `KEY.cls` or `KEY.json` its label.

WebDataset ends a key at the first dot, so that `KEY.mask.png` is a field of KEY. Names such as
`cam_2024.05.png` are no such fields; see `_keys`. Shards must be uncompressed: workers read the bytes of an
image by offset, and nothing is extracted.
"""

import functools
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tarfile import TarInfo
from typing import IO

from rela.errors import ChoiceError, DataError, one_line
from rela.sources.archives.compressed import compression_of
from rela.sources.archives.tar_archives import (
    TARS,
    is_plain_file,
    leads_out,
    open_tar_file,
    walk_tar,
)
from rela.sources.file_patterns import has_suffix, list_files, total_bytes, typical_suffix
from rela.sources.labels import Label, Labelled, choose_splits, find_classes
from rela.sources.source import (
    FileRange,
    ImageSource,
    ListingProgress,
    Place,
    SourceOptions,
    Unusable,
)
from rela.sources.splits.names import named_split
from rela.sources.splits.tree import image_suffixes, is_system_name, kind_of_system

WHAT = "WebDataset shards (.tar files, their folder or a pattern)"
SUFFIXES = TARS  # compressed shards are refused with the reason
OPTIONS = ("image_field", "split")
_LABEL_SUFFIXES = ("cls", "json")
_LABEL_KEYS = ("label", "class")  # of a .json
_WORD = re.compile(r"[a-z_]+\.[a-z0-9]+")  # a field such as left.png
_LARGEST_LABEL_BYTES = 1 << 20


def recognises(path: Path) -> bool:
    """Whether `path` is a .tar, a pattern of .tar files, or a folder with .tar files and no images."""
    return any(has_suffix(path, suffix) for suffix in SUFFIXES) or (
        path.is_dir() and typical_suffix(path) == ".tar"
    )


def read(path: Path, options: SourceOptions, on_progress: ListingProgress) -> ImageSource:
    """The samples of all shards, ordered by shard name, then as stored.

    The name or folder of a shard determines its split; without a `train` split, all shards are train.
    Raises ChoiceError if keys have several images and `image_field` does not choose one.
    """
    root, shards = list_files(path, ".tar")
    by_split: dict[str, list[Path]] = {}
    for shard in shards:
        by_split.setdefault(named_split(shard.relative_to(root)), []).append(shard)
    chosen, ignored = choose_splits(one_line(str(path)), by_split, options.split)
    num_bytes = sum(total_bytes(by_split[name]) for name in chosen.values())
    stray: list[str] = []
    skipped: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    splits: dict[str, list[Labelled]] = {}
    for split, name in chosen.items():
        splits[split] = []
        with ThreadPoolExecutor() as pool:
            read_shard = functools.partial(
                _read_shard, root, advance=lambda more: on_progress(more, num_bytes)
            )
            found = list(pool.map(read_shard, by_split[name]))
        for shard_found in found:
            stray += shard_found.stray
            skipped += shard_found.skipped
            for sample in shard_found.samples:
                image = _chosen_image(sample, path, options.image_field)
                others = sample.images.keys() - ({image} if image else set())
                left_out.update(others)
                if image is not None:
                    splits[split].append(sample.labelled(image))
    if options.image_field is not None and not any(splits.values()):
        fields = one_line(", ".join(sorted(left_out))) or "no images"
        raise ChoiceError(
            f"--image-field {one_line(options.image_field)} is no field of {one_line(str(path))}; found "
            f"{fields}"
        )
    notes = []
    if left_out:
        fields = ", ".join(f"{count:,} {field}" for field, count in left_out.most_common(6))
        notes = [
            f"left out images of other fields: {one_line(fields)}; --image-field chooses another one"
        ]
    class_names, samples = find_classes(path, splits)
    names = [shard.name for shard in shards]
    if not class_names and len(names) > 1 and not any(re.search("[0-9]", name) for name in names):
        loop = 'for f in *.tar; do mkdir "${f%.tar}" && tar -xf "$f" -C "${f%.tar}"; done'
        notes.append(f"no labels; if each tar is a class, unpack them: `{loop}`")
    return ImageSource(
        root, class_names, samples, chosen.get("val", ""), stray, ignored_splits=ignored, notes=notes,
        num_skipped=dict(skipped),
    )  # fmt: skip


@dataclass(slots=True)
class _Sample:
    """The members of one key: images by field (what follows the key), and the label."""

    key: str
    shard: str
    images: dict[str, tuple[str, Place]] = field(default_factory=dict)
    label: Label | DataError = None
    label_from: str = ""

    def labelled(self, image: str) -> Labelled:
        if isinstance(self.label, DataError):
            raise self.label
        return Labelled(self.images[image][0], self.label, self.images[image][1])


def _chosen_image(sample: _Sample, source: Path, asked: str | None) -> str | None:
    """The field of the image that is used, None if none is; raises ChoiceError if several may be."""
    fields = list(sample.images)
    if asked is not None:
        wanted = asked.lower().removeprefix(".")
        fields = [f for f in fields if wanted in (f, f.rpartition(".")[0])]
    elif len(fields) > 1:  # KEY.jpg is the image, KEY.mask.png belongs to it
        fields = [f for f in fields if "." not in f] or fields
    if len(fields) < 2:
        return fields[0] if fields else None
    shown = one_line(str(source))
    commands = ", ".join(
        f"`rela convert {one_line(shlex.quote(str(source)))} --image-field {one_line(shlex.quote(f))}`"
        for f in fields[:4]
    )
    raise ChoiceError(
        f"{shown} has {len(fields)} images with the key {sample.key!r} in {one_line(sample.shard)}: "
        f"{one_line(', '.join(fields))}; choose one: {commands}"
    )


@dataclass(frozen=True, slots=True)
class _Member:
    """A file of a shard, named `first.field` by WebDataset's rule and `stem.suffix` by its last dot."""

    name: str
    first: str
    field: str
    place: Place
    label: Label | DataError

    @property
    def suffix(self) -> str:
        return self.field.rpartition(".")[2]

    @property
    def stem(self) -> str:
        middle = self.field.rpartition(".")[0]
        return f"{self.first}.{middle}" if middle else self.first

    @property
    def is_image(self) -> bool:
        return f".{self.suffix}" in image_suffixes()

    @property
    def is_label(self) -> bool:
        return self.suffix in _LABEL_SUFFIXES


@dataclass(frozen=True)
class _Shard:
    samples: list[_Sample]
    stray: list[str]
    skipped: Counter[str]


def _read_shard(root: Path, shard: Path, advance: Callable[[int], None]) -> _Shard:
    """Its samples in the order of their images, keys without an image; `advance` hears of bytes passed."""
    name, skipped = str(shard.relative_to(root)), Counter[str]()
    at, members = 0, list[_Member]()
    with open_tar_file(shard) as file:
        for member, first, rest in _fields(file, shard, skipped):
            advance(member.offset_data - at)
            at = member.offset_data
            label = _label(file, shard, member, rest) if is_plain_file(member) else None
            members.append(_Member(member.name, first, rest, _place(shard, member), label))
    advance(total_bytes([shard]) - at)
    samples: dict[str, _Sample] = {}
    key_of = _keys(members)
    for image in (member for member in members if member.is_image):
        key = key_of[image.name]
        rest = image.field if key == image.first else image.suffix
        sample = samples.setdefault(key, _Sample(key, name))
        if rest in sample.images:
            raise DataError(
                f"{one_line(str(shard))} has two images with the key {key!r}; keys must be unique"
            )
        sample.images[rest] = (f"{name}/{image.name}", image.place)
    lonely: dict[str, None] = {}
    for other in (member for member in members if not member.is_image):
        found = next((key for key in (other.stem, other.first) if key in samples), None)
        if found is None:
            lonely[other.stem if other.is_label else other.first] = None
        elif other.is_label and found == other.stem and samples[found].label_from != "cls":
            samples[found].label, samples[found].label_from = other.label, other.suffix
    return _Shard(list(samples.values()), [f"{name}/{key}.*" for key in lonely], skipped)


def _keys(members: list[_Member]) -> dict[str, str]:
    """Name of an image → its key, which ends at the first dot, as in WebDataset, or at the last.

    `KEY.left.png` is a field of `KEY`, and `cam_2024.05.png` is not one of `cam_2024`. The last dot counts
    where a label has the same name up to it, or where neither a label nor an image has the first part as
    its name, and the middle is no word that other keys have, too.
    """
    labels = {member.stem for member in members if member.is_label}
    plain = {member.first for member in members if member.is_image and "." not in member.field}
    images = [member for member in members if member.is_image]
    fields = Counter(field for _, field in {(m.first, m.field) for m in images})

    def key(member: _Member) -> str:
        if member.stem in labels or member.stem == member.first:
            return member.stem
        is_word = bool(_WORD.fullmatch(member.field)) and fields[member.field] > 1
        return member.first if member.first in labels | plain or is_word else member.stem

    return {member.name: key(member) for member in images}


def _fields(
    file: IO[bytes], shard: Path, skipped: "Counter[str]"
) -> Iterator[tuple[TarInfo, str, str]]:
    """(member, name up to the first dot, what follows it) of every file that is not a system's own."""
    if compression := compression_of(shard):
        command = one_line(shlex.join([compression.undone_by, str(shard)]))
        raise DataError(
            f"{one_line(str(shard))} is compressed, but images are read by their offset in it; "
            f"decompress it with `{command}`"
        )
    for member in walk_tar(file, shard):
        name = member.name.removeprefix("./")
        system = next((part for part in name.split("/") if is_system_name(part)), None)
        folder, slash, base = name.rpartition("/")
        stem, _, rest = base.partition(".")
        if member.isdir() or not name:
            continue
        if system is not None and system != "..":
            skipped[kind_of_system(system)] += 1
        elif rest:
            yield member, folder + slash + stem, rest.lower()


def _place(shard: Path, member: TarInfo) -> FileRange | Unusable:
    if leads_out(member.name):
        return Unusable("its name leads out of the archive")
    if not is_plain_file(member):
        return Unusable("no regular file in its archive")
    return FileRange(str(shard), member.offset_data, member.size)


def _label(file: IO[bytes], shard: Path, member: TarInfo, rest: str) -> Label | DataError:
    """The label in a .cls or .json; an error is raised only if a sample has this label."""
    suffix = rest.rpartition(".")[2]
    if suffix not in _LABEL_SUFFIXES:
        return None
    where = one_line(f"{shard}/{member.name}")
    if member.size > _LARGEST_LABEL_BYTES:
        return DataError(f"{where} claims {member.size:,} bytes, too many for a label")
    file.seek(member.offset_data)
    content = file.read(member.size)
    try:
        if suffix == "cls":
            return content.decode("utf-8").strip() or None
        document = json.loads(content)
    except (ValueError, RecursionError):
        return DataError(f"{where} is not valid {'UTF-8' if suffix == 'cls' else 'JSON'}")
    if isinstance(document, dict):
        for key in _LABEL_KEYS:
            value = document.get(key)
            if isinstance(value, int | str) and not isinstance(value, bool):
                return value if isinstance(value, int) else value.strip() or None
    return None
