"""What a data set holds, and what was found while it was converted: `summary.json` beside its manifest."""

import json
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rela.data.beton.tally import MAX_NAMES, Named, Tally
from rela.data.beton.writer import WriteResult
from rela.errors import one_line
from rela.pipeline.manifest import Manifest
from rela.result import Result, Table
from rela.sources.pixels import range_in_words
from rela.stages.display import human_bytes
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.schema import read_json

SUMMARY_FILE, SHEET_FILE = "summary.json", "contact_sheet.png"
_MAX_CLASS_NAMES, _MAX_REASONS, _MAX_FORMATS = 6, 3, 6
_MAX_LINES = 22
_COLUMNS, _LABEL_COLUMNS = 100, 12
_MAX_LETTERS = 18  # of the name of a class


@dataclass(frozen=True)
class ClassCount:
    """The images of one class."""

    name: str
    count: int


@dataclass(frozen=True)
class SplitSummary:
    """The images of one split; without `largest` and `smallest` where there are no labels."""

    num_images: int
    num_classes: int
    largest: ClassCount | None
    smallest: ClassCount | None


@dataclass(frozen=True)
class Reason:
    """How many images were left out for one reason, and one of them."""

    reason: str
    count: int
    example: str


@dataclass(frozen=True)
class Twins:
    """Images whose files are byte-identical to others.

    - `within`: by split, those that repeat an earlier image of their split;
    - `val_in_train`: images of val that are also in train;
    - `between_classes`: images that are also in another class.

    Names are pairs, `one = other`.
    """

    within: dict[str, Named]
    val_in_train: Named
    between_classes: Named


@dataclass(frozen=True)
class Summary:
    """What `rela convert` ends with.

    - `class_names`: the first; `formats`: files by format;
    - `min_size`, `max_size`: the least and the largest width and height, in pixels; `num_sizes`: how many
      sizes there are; `median_shorter_side`: in pixels;
    - the `Named`: see Tally; `bits`, `float_bits`: see DataSetContent;
    - `left_out`: bad images, by reason; `notes`: what else was not used, a line each.
    """

    splits: dict[str, SplitSummary]
    num_classes: int
    class_names: list[str]
    formats: dict[str, int]
    min_size: tuple[int, int]
    max_size: tuple[int, int]
    num_sizes: int
    median_shorter_side: int
    background: str
    transparent: Named
    turned: Named
    deep: Named
    bits: int | None
    float_bits: int | None
    one_colour: Named
    vanished: Named
    twins: Twins
    several: Named = field(default_factory=Named)
    left_out: list[Reason] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def write(self, directory: Path) -> None:
        """Write it into the folder of a data set."""
        (directory / SUMMARY_FILE).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


def read_summary(dataset: DataSet) -> Summary | None:
    """That of a data set; None for one of a version without; CorruptArtifactError if it is damaged."""
    if SUMMARY_FILE not in dataset.manifest.file_sha256:
        return None
    return read_json(dataset.sound_file(SUMMARY_FILE), Summary)


def summarize(
    manifest: Manifest,
    results: Mapping[str, WriteResult],
    reasons: Sequence[tuple[str, str]],
    notes: Sequence[str],
) -> Summary:
    """`manifest`: of the data set; `reasons`: (path, reason) of every bad image."""
    class_names, content = manifest.content["class_names"], manifest.content
    tally = sum((result.tally for result in results.values()), Tally())
    heights, widths = zip(*tally.sizes, strict=True)
    sides = sorted(min(size) for size in tally.sizes.elements())
    kinds = Counter(reason for _, reason in reasons)
    example = {reason: path for path, reason in reversed(reasons)}
    return Summary(
        splits={split: _of_split(result, class_names) for split, result in results.items()},
        num_classes=len(class_names),
        class_names=list(class_names[:_MAX_CLASS_NAMES]),
        formats=dict(tally.formats.most_common()),
        min_size=(min(widths), min(heights)),
        max_size=(max(widths), max(heights)),
        num_sizes=len(tally.sizes),
        median_shorter_side=sides[len(sides) // 2],
        background=manifest.parameters["background"],
        transparent=tally.transparent,
        turned=tally.turned,
        deep=tally.deep,
        bits=content["bits"],
        float_bits=content["float_bits"],
        one_colour=tally.one_colour,
        vanished=tally.vanished,
        several=tally.several,
        twins=_twins(results),
        left_out=[Reason(r, count, example[r]) for r, count in kinds.most_common()],
        notes=list(notes),
    )


def _of_split(result: WriteResult, class_names: Sequence[str]) -> SplitSummary:
    counts = Counter(sample.label for sample in result.samples if sample.label >= 0)
    ordered = [ClassCount(class_names[label], count) for label, count in counts.most_common()]
    ends = (ordered[0], ordered[-1]) if ordered else (None, None)
    return SplitSummary(len(result.samples), len(counts), *ends)


def _twins(results: Mapping[str, WriteResult]) -> Twins:
    """By the digests of the files; 32 bytes for each image, and indices."""
    names = list(results)
    samples = [sample for result in results.values() for sample in result.samples]
    split = np.repeat(np.arange(len(names)), [len(r.samples) for r in results.values()])
    label = np.fromiter((sample.label for sample in samples), np.int64, len(samples))
    digests = bytes.fromhex("".join(d for r in results.values() for d in r.source_sha256))

    def firsts(keys: NDArray[Any]) -> NDArray[np.int64]:
        """For each image, the index of the first with the same key."""
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        return first[inverse.ravel()]

    def named(which: NDArray[np.bool_], first: NDArray[np.int64]) -> Named:
        shown = np.flatnonzero(which)[:MAX_NAMES].tolist()
        pairs = [f"{samples[index].path} = {samples[first[index]].path}" for index in shown]
        return Named(int(which.sum()), pairs)

    file = firsts(np.frombuffer(digests, "S32"))
    here = firsts(file * len(names) + split)
    own = np.arange(len(samples))
    repeated = here != own
    return Twins(
        within={name: named(repeated & (split == i), here) for i, name in enumerate(names)},
        val_in_train=named(split != split[file], file),
        between_classes=named(label != label[file], file),
    )


@dataclass(frozen=True, repr=False)
class Described(Result):
    """One data set for `rela status`; `summary` is None for one of a version without."""

    dataset: DataSet
    summary: Summary | None

    def shown(self) -> dict[str, Any]:
        """As of the data set."""
        return self.dataset.shown()

    def tables(self) -> dict[str, Table]:
        """The lines that `rela convert` ends with."""
        return {"summary": summary_table(self.dataset, self.summary)}


def describe(dataset: DataSet) -> Described:
    """What is stored about a data set."""
    return Described(dataset, read_summary(dataset))


def format_described(described: Described) -> str:
    """The same lines, after the name and the source of the data set."""
    dataset = described.dataset
    made = "" if dataset.source is None else f" of {one_line(dataset.source)}"
    return "\n".join(
        [f"data set {dataset.name}{made}", *dataset_in_words(dataset, described.summary)]
    )


def summary_table(dataset: DataSet, summary: Summary | None) -> Table:
    """The lines of `dataset_in_words`, each with its label."""
    lines, columns = dataset_in_words(dataset, summary), _LABEL_COLUMNS + 2
    return (), [[line[:columns].strip(), line[columns:]] for line in lines]


def dataset_in_words(dataset: DataSet, summary: Summary | None) -> list[str]:
    """At most 24 lines of 100 columns: the summary, how images are stored, where the contact sheet is."""
    lines = []
    if summary is None:
        for name, split in dataset.splits.items():
            lines += _line(name, f"{split.num_images:,} images")
    if summary is None and dataset.has_images:
        lines += _line("note", "made by an earlier version of rela, without a summary")
    if summary is not None:
        lines += _summary_in_words(summary)
    if not dataset.has_images:
        source = one_line(dataset.source or "their shards")
        return [*lines, *_line("images", f"none here, names alone: they stayed in {source}")]
    num_raw, num_jpeg = (
        sum(getattr(split, number) for split in dataset.splits.values())
        for number in ("num_raw", "num_jpeg")
    )
    size = sum(dataset.beton_path(split).stat().st_size for split in dataset.splits)
    lines += _line("stored", f"{num_raw:,} raw, {num_jpeg:,} JPEG, {human_bytes(size)}")
    if summary is not None:
        lines.append(f"  {'sheet':<{_LABEL_COLUMNS}}{dataset.path / SHEET_FILE}")
    return lines


def _summary_in_words(summary: Summary) -> list[str]:
    """At most _MAX_LINES; the notes have what is left of them."""
    lines = []
    for name, split in summary.splits.items():
        lines += _line(name, _split_in_words(split))
    if summary.num_classes:
        more = summary.num_classes - len(summary.class_names)
        ending = f" and {more:,} more" if more else ""
        lines += _line("classes", ", ".join(summary.class_names), ending)
    formats = [f"{count:,} {kind}" for kind, count in summary.formats.items()]
    lines += _line(
        "formats", ", ".join(formats[:_MAX_FORMATS]), ", …" * (len(formats) > _MAX_FORMATS)
    )
    lines += _line("sizes", _sizes_in_words(summary))
    behind = "ignored" if summary.background == "none" else f"on {summary.background}"
    lines += _named("alpha", summary.transparent, f"with transparent pixels, {behind}")
    lines += _named("rotation", summary.turned, "turned upright, as EXIF says")
    ranges = [range_in_words(b) for b in (summary.bits, summary.float_bits) if b is not None]
    how = ", ".join(ranges) or "by the range that the files declare"
    lines += _named("depth", summary.deep, f"of more than 8 bits; {how}")
    lines += _named("frames", summary.several, "of several frames or pages, the first is stored")
    lines += _named("one colour", summary.one_colour, "all of one colour")
    if summary.vanished.count:
        having = f"{summary.vanished.count:,} of them have transparent pixels"
        lines += _line("", f"{having}: another --background may show them")
    twins = {
        **{f"within {name}": found for name, found in summary.twins.within.items()},
        "val also in train": summary.twins.val_in_train,
        "in several classes": summary.twins.between_classes,
    }
    for where, found in twins.items():
        if found.count:
            lines += _line("identical", f"{where}: {found.count:,}", f" ({found.names[0]})")
    for reason in summary.left_out[:_MAX_REASONS]:
        lines += _line("left out", f"{reason.count:,} × {reason.reason}", f" ({reason.example})")
    rest = sum(reason.count for reason in summary.left_out[_MAX_REASONS:])
    lines += _line("left out", f"{rest:,} for other reasons") if rest else []
    room = _COLUMNS - _LABEL_COLUMNS - 2
    notes = [line for note in summary.notes for line in textwrap.wrap(one_line(note), room)]
    if len(notes) > (most := _MAX_LINES - len(lines)):
        notes = [*notes[: most - 1], f"{notes[most - 1][: room - 2]} …"]
    for number, note in enumerate(notes):
        lines += _line("note" if number == 0 else "", note)
    return lines


def _line(label: str, text: str, ending: str = "") -> list[str]:
    """A line of a table; a long text is cut before its ending."""
    room = _COLUMNS - _LABEL_COLUMNS - 2
    text, ending = one_line(text), one_line(ending)
    most = max(room // 2, room - len(text))
    if len(ending) > most:
        ending = f"{ending[: most - 1]}…"
    if len(text) + len(ending) > room:
        text = f"{text[: room - len(ending) - 1]}…"
    return [f"  {label:<{_LABEL_COLUMNS}}{text}{ending}"]


def _named(label: str, found: Named, words: str) -> list[str]:
    if not found.count:
        return []
    return _line(label, f"{found.count:,} {words}", f" ({found.names[0]})")


def _split_in_words(split: SplitSummary) -> str:
    images = f"{split.num_images:,} image{'s' * (split.num_images != 1)}"
    if split.largest is None or split.smallest is None:
        return f"{images}, no labels"
    classes = f"{split.num_classes:,} class{'es' * (split.num_classes != 1)}"
    largest, smallest = (
        f"{c.name[:_MAX_LETTERS]} ({c.count:,})" for c in (split.largest, split.smallest)
    )
    if split.largest.count == split.smallest.count:
        return f"{images} in {classes}, {split.largest.count:,} in each"
    return f"{images} in {classes}, largest {largest}, smallest {smallest}"


def _sizes_in_words(summary: Summary) -> str:
    (width, height), (widest, highest) = summary.min_size, summary.max_size
    if summary.num_sizes == 1:
        return f"{width}×{height} pixels"
    return (
        f"{width} to {widest} pixels wide, {height} to {highest} high, "
        f"median of the shorter side {summary.median_shorter_side}"
    )
