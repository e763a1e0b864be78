"""Several sources as one: classes merged by name, splits by what they are, images told apart by source."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rela.errors import ChoiceError, one_line
from rela.sources.labels import merge_classes
from rela.sources.source import FileRange, ImageSource, Place, Sample, Unusable


def joined(paths: Sequence[Path], sources: Sequence[ImageSource]) -> ImageSource:
    """The images of all sources, in their order; names begin with the source's path below a common folder.

    Without a validation split, all of a source is train. Raises ChoiceError for a source that is given twice
    or lies in another one, DataError if only some have labels.
    """
    whole = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 (links are kept)
    for number, path in enumerate(whole):
        for other in (*whole[:number], *whole[number + 1 :]):
            if path == other or other in path.parents:
                raise ChoiceError(
                    f"{one_line(str(paths[number]))} lies in {one_line(str(other))}, which is given too; "
                    "leave one out"
                )
    root = Path(os.path.commonpath([path.parent for path in whole]))
    class_names, number_of = merge_classes(
        ", ".join(map(str, paths)), (source.class_names for source in sources)
    )
    splits: dict[str, list[Sample]] = {}
    for path, source in zip(whole, sources, strict=True):
        for split, samples in source.splits.items():
            splits.setdefault(split, []).extend(
                Sample(
                    str(path.relative_to(root) / sample.path),
                    number_of[source.class_names[sample.label]] if sample.label >= 0 else -1,
                    sample.place or _place(source.root / sample.path),
                )
                for sample in samples
            )
    labels = [str(path.relative_to(root)) for path in whole]
    there = list(zip(labels, sources, strict=True))
    num_skipped: dict[str, int] = {}
    for source in sources:
        for kind, count in source.num_skipped.items():
            num_skipped[kind] = num_skipped.get(kind, 0) + count
    return replace(
        sources[0],
        root=root,
        class_names=class_names,
        splits=splits,
        val_name=", ".join(f"{name}: {s.val_name}" for name, s in there if s.val_name),
        stray_files=[f"{name}/{path}" for name, s in there for path in s.stray_files],
        empty_classes=[f"{name}/{path}" for name, s in there for path in s.empty_classes],
        ignored_splits=[f"{name}/{path}" for name, s in there for path in s.ignored_splits],
        notes=[f"{one_line(name)}: {note}" for name, s in there for note in s.notes],
        num_skipped=num_skipped,
    )


def _place(file: Path) -> Place:
    """Where a file is that has no path below the common folder by its name."""
    try:
        return FileRange(str(file), 0, os.stat(file).st_size)
    except OSError as error:
        return Unusable(f"cannot be read: {error.strerror}")
