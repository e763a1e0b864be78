"""What a conversion leaves out: the words for people, and the CSV beside the manifest."""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rela.data.beton.writer import WriteResult
from rela.errors import DataError, one_line
from rela.pipeline.files import write_atomic
from rela.sources import csv_table
from rela.sources.source import ImageSource, split_remedy
from rela.sources.splits.other_files import counted, kind_of, pictures_in_words
from rela.sources.splits.tree import is_image_name
from rela.stages.requests import Convert, command_of

LEFT_OUT_FILE = "left_out.csv"
_COLUMNS = ("path", "reason")
_SHOWN = 5
SHOWN_BAD_IMAGES = 10
BadImages = Sequence[tuple[str, str]]  # path, reason


def oddities(images: ImageSource) -> list[str]:
    """A line for each kind of thing that a source holds and a data set does not."""
    lines = list(images.notes)
    loose = [path for path in images.stray_files if is_image_name(path)]
    if loose:
        lines.append(
            f"left out {_many(len(loose), 'image')} beside class folders: {_such_as(loose)}"
        )
    rest = [path for path in images.stray_files if not is_image_name(path)]
    if rest:
        kinds = counted(Counter(map(kind_of, rest)))
        lines.append(f"ignored {_many(len(rest), 'stray file')} ({kinds}): {_such_as(rest)}")
    lines += pictures_in_words(rest)
    if images.empty_classes:
        folders = _many(len(images.empty_classes), "folder")
        lines.append(f"ignored {folders} without images: {_such_as(images.empty_classes)}")
    if images.num_skipped:
        total = _many(sum(images.num_skipped.values()), "hidden or system entr", "y", "ies")
        lines.append(f"skipped {total}: {counted(images.num_skipped)}")
    for split in images.ignored_splits:
        remedy = f"; {split_remedy(split)}" if split != "(none)" else ""
        lines.append(
            f"ignored the split {one_line(split)}: data sets have a train and a val split{remedy}"
        )
    return lines


def bad_images_in_words(bad: BadImages) -> list[str]:
    """The first images with their reasons; if there are more, after every reason with its count."""
    reasons = Counter(without_numbers(reason) for _, reason in bad)
    lines = [f"  {one_line(p)}: {one_line(reason)}" for p, reason in bad[:SHOWN_BAD_IMAGES]]
    if len(bad) <= SHOWN_BAD_IMAGES:
        return lines
    summary = [f"  {count:,} × {one_line(reason)}" for reason, count in reasons.most_common()]
    return [*summary, *lines, f"  and {len(bad) - SHOWN_BAD_IMAGES:,} more"]


def refused(
    images: ImageSource, request: Convert, bad: BadImages, listed: Path, skip: str
) -> DataError:
    """The error for bad images, of which a long list is written to `listed`.

    `skip`: the command that leaves them out, "" if a split has no others.
    """
    if elsewhere := _begin_elsewhere(images, request, bad):
        return DataError(elsewhere)
    if len(bad) > SHOWN_BAD_IMAGES:
        write_atomic(listed, left_out_csv(images, bad))
    return DataError(
        _bad_image_list(images.url or ", ".join(map(str, request.sources)), bad, listed, skip)
    )


def _begin_elsewhere(images: ImageSource, request: Convert, bad: BadImages) -> str:
    """What to say of a table none of whose paths exists; empty otherwise."""
    if request.more:
        return ""
    source, total = Path(request.source), sum(map(len, images.splits.values()))
    is_table = source.is_file() and source.name.lower().endswith(csv_table.SUFFIXES)
    if not is_table or len(bad) < total or not all(_is_missing(reason) for _, reason in bad):
        return ""
    paths = "the only path" if total == 1 else f"none of the {total:,} paths"
    there = [f for f in (Path(), *source.absolute().parents) if (f / bad[0][0]).is_file()]
    command = command_of("convert", request, image_root=there[0] if there else Path("FOLDER"))
    words = f"`{command}`" if there else f"--image-root FOLDER says where (default: {images.root})"
    does = "does not exist" if total == 1 else "exists"
    return (
        f"{paths} in {one_line(str(source))} {does} below {one_line(str(images.root))}, such as "
        f"{one_line(bad[0][0])}; they begin elsewhere: {words}"
    )


def _is_missing(reason: str) -> bool:
    return reason.endswith("No such file or directory") or reason.startswith(
        "no image of that name"
    )


def _bad_image_list(source: str, bad: BadImages, listed: Path, skip: str) -> str:
    rest = f" All of them: {listed}" if len(bad) > SHOWN_BAD_IMAGES else ""
    images = f"{len(bad):,} bad image{'s' if len(bad) > 1 else ''}"
    remedy = f"Fix or remove them, or skip them with `{skip}`."
    if not skip:
        remedy = "All images of a split are bad, so fix them."
    return "\n".join(
        [
            f"{images} in {one_line(source)}; nothing was converted. {remedy}{rest}",
            *bad_images_in_words(bad),
        ]
    )


def options_that_skip(results: Mapping[str, WriteResult], held_out: bool) -> dict[str, Any]:
    """The options of `rela convert` that leave bad images out; none if nothing were left of a split."""
    good = [bool(result.samples) for result in results.values()]
    if all(good):
        return {"on_bad_image": "skip"}
    return {"on_bad_image": "skip", "val_fraction": 0} if held_out and any(good) else {}


def require_good_images(results: Mapping[str, WriteResult], held_out: bool) -> None:
    """Raise DataError for a split of which all images are bad."""
    for split, result in results.items():
        if not result.samples:
            cut = held_out and any(other.samples for other in results.values())
            remedy = "; keep all in train with --val-fraction 0" if cut else ""
            said = f"all {len(result.bad_images):,} images of {split} are bad{remedy}"
            raise DataError("\n".join([said, *bad_images_in_words(result.bad_images)]))


def left_out_csv(images: ImageSource, bad: BadImages) -> bytes:
    """Every bad image and stray file with the reason; empty if there is none."""
    rows = [*bad]
    for path in images.stray_files:
        rows.append((path, "beside class folders" if is_image_name(path) else "stray file"))
    if not rows:
        return b""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([_COLUMNS, *rows])
    return text.getvalue().encode("utf-8", "surrogateescape")


def _such_as(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else ""
    return ", ".join(map(one_line, paths[:_SHOWN])) + more


def _many(count: int, noun: str, one: str = "", many: str = "s") -> str:
    return f"{count:,} {noun}{one if count == 1 else many}"


def without_numbers(reason: str) -> str:
    """Reasons that differ only in numbers are one."""
    return re.sub(r"[1-9][0-9,.×]*", "N", reason)
