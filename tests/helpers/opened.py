"""Sources of images as `rela convert` opens them."""

from pathlib import Path
from typing import Any

from rela.sources import find_kind, open_source
from rela.sources.source import ImageSource, SourceOptions


def open_as(kind: str, path: Path, **options: Any) -> ImageSource:
    """The source at `path`, which must be recognised as of this kind."""
    assert find_kind(path) == kind
    return open_source(path, "auto", SourceOptions(**options))


def paths_and_labels(source: ImageSource, split: str = "train") -> list[tuple[str, int]]:
    return [(sample.path, sample.label) for sample in source.splits[split]]
