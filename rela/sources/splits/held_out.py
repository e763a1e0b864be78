"""A validation split for a source that has none: a share of each class, copies of an image on one side."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from rela.errors import DataError
from rela.sources.image_file import BadImageError
from rela.sources.source import FileRange, ImageSource, Sample, content_sha256, rank

_END_BYTES = 1 << 14
DEFAULT_FRACTION = 0.1
Find = Callable[[Sequence[Sample]], Mapping[str, Hashable]]
Progress = Callable[[int], None]  # called with the number of images done since the last call


def with_val(
    source: ImageSource, fraction: float | None, seed: int, find: Find = lambda samples: {}
) -> ImageSource:
    """`source` with a validation split cut from train, and no empty split.

    Without a fraction, DEFAULT_FRACTION of a labelled source that has no validation split. `find` gives the
    copies among samples, by path. Raises DataError for a fraction where there is already a validation
    split, or where no class has two different images.
    """
    has_val, train = "val" in source.splits, source.splits["train"]
    if fraction and has_val:
        raise DataError(
            f"{source.where} has a validation split of its own ({source.val_name}); remove --val-fraction"
        )
    share = fraction
    if share is None:
        share = 0.0 if has_val or not source.labelled else DEFAULT_FRACTION
    splits = source.splits if not share else hold_out(train, share, seed, find(train))
    if fraction and not splits.get("val"):
        largest = max(Counter(s.label for s in train).values(), default=0)
        raise DataError(
            f"--val-fraction {fraction:g} of {source.where} is less than one image of any class (the "
            f"largest has {largest}, and one stays in train); use a larger one, or more images"
        )
    splits = {split: found for split, found in splits.items() if found}
    if not share:
        return replace(source, splits=splits)
    if "val" not in splits:
        note = "no validation split: no class has two different images"
        return replace(source, splits=splits, notes=[*source.notes, note])
    classes = len({sample.label for sample in splits["val"]})
    covered = f", {_of_all(classes, len(source.class_names))}," if source.labelled else ""
    note = (
        f"{len(splits['val']):,} of {len(train):,} images{covered} are held out for validation; "
        "--val-fraction 0 keeps all in train"
    )
    return replace(source, splits=splits, val_fraction=share, notes=[*source.notes, note])


def _of_all(count: int, classes: int) -> str:
    return "of every class" if count == classes else f"of {count:,} of {classes:,} classes"


def hold_out(
    samples: Sequence[Sample], fraction: float, seed: int, copies: Mapping[str, Hashable]
) -> dict[str, list[Sample]]:
    """Move ⌊fraction·n + ½⌋ images of each class to val, in the order of a hash of (seed, name).

    At least one of each class that has two, and never all. Images with equal `copies` (by path) stay
    together, so that the count is approximate with many copies; copies with different labels stay in
    train. Both parts keep the order of `samples`.
    """
    units: dict[Hashable, list[Sample]] = defaultdict(list)
    for sample in samples:
        units[copies.get(sample.path, (sample.path,))].append(sample)
    by_class: dict[int, list[list[Sample]]] = defaultdict(list)
    for unit in units.values():
        if len({sample.label for sample in unit}) == 1:
            by_class[unit[0].label].append(unit)
    sizes = Counter(sample.label for sample in samples)
    chosen: set[str] = set()
    for label, found in by_class.items():
        ordered = sorted(found, key=lambda unit: min(rank(seed, sample) for sample in unit))
        count = min(int(fraction * sizes[label] + 0.5), sizes[label] - 1)
        chosen.update(_chosen(ordered, count if label < 0 else max(count, 1), sizes[label]))
    return {
        "train": [sample for sample in samples if sample.path not in chosen],
        "val": [sample for sample in samples if sample.path in chosen],
    }


def _chosen(units: list[list[Sample]], count: int, size: int) -> Iterable[str]:
    """Paths of about `count` images of a class of `size`, by whole units in their order."""
    left = count
    for unit in units:
        if len(unit) <= left and len(unit) < size:
            left -= len(unit)
            yield from (sample.path for sample in unit)
    smallest = min(units, key=len, default=[])
    if count and left == count and len(smallest) < size:  # only units that are larger
        yield from (sample.path for sample in smallest)


def find_copies(
    root: Path, samples: Sequence[Sample], on_progress: Progress = lambda count: None
) -> dict[str, str]:
    """Path → digest of the images whose bytes another image has, too.

    Files of a size of their own are not opened; of the others the end is read, and only where it is the
    same the whole. `on_progress` hears of every sample once.
    """
    sized = [(_size(root, sample), sample) for sample in samples]
    alike = _several(sized)
    on_progress(len(samples) - len(alike))
    with ThreadPoolExecutor() as pool:
        ends = pool.map(lambda each: _end(root, *each), alike)
        found: list[tuple[Hashable, Sample]] = []
        for (size, sample), end in zip(alike, ends, strict=True):
            found.append(((size, end) if end else (sample.path,), sample))
            on_progress(1)
        alike = _several(found)
        digests = pool.map(lambda each: each[1].sha256(root), alike)
        pairs = [(d or (each[1].path,), each[1]) for d, each in zip(digests, alike, strict=True)]
    return {sample.path: str(digest) for digest, sample in _several(pairs)}


def _several(
    keyed: Sequence[tuple[Hashable, Sample]],
) -> list[tuple[Hashable, Sample]]:
    """Those whose key occurs more than once."""
    counts = Counter(key for key, _ in keyed)
    return [(key, sample) for key, sample in keyed if counts[key] > 1]


def _size(root: Path, sample: Sample) -> Hashable:
    """In bytes; -1 if that is not known without reading, the path of a file that is not there."""
    if sample.place is not None:
        return int(getattr(sample.place, "size", -1))
    try:
        return os.stat(root / sample.path).st_size
    except OSError:
        return sample.path


def _end(root: Path, size: Hashable, sample: Sample) -> str:
    """Digest of the last bytes, or of the whole of an image that is not a part of a file."""
    place = sample.place
    if place is None:
        place = FileRange(str(root / sample.path), 0, size if isinstance(size, int) else 0)
    if not isinstance(place, FileRange):
        return sample.sha256(root)
    count = min(place.size, _END_BYTES)
    try:
        end = FileRange(place.path, place.offset + place.size - count, count).read()
    except BadImageError:
        return ""
    return content_sha256(end)
