"""Sources: whatever images are kept in, a folder, an archive or a table, read as splits of samples.

A kind of source is one module with `WHAT` it is in words, `recognises(path)` and `read(path, options)`,
and one line in `_MODULES`. None of them decodes an image, or writes anything, and none is imported before
it is asked.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.errors import DataError, one_line

if TYPE_CHECKING:  # which brings NumPy and Pillow
    from rela.sources.source import ImageSource, SourceOptions

_MODULES = {  # by what --format calls them, in the order in which they are asked
    "cifar": "cifar",
    "huggingface": "hugging_face",
    "webdataset": "webdataset",
    "csv": "path_list",
    "folder": "image_folder",
}
KINDS = tuple(_MODULES)


def find_kind(path: Path, kind: str = "auto") -> str:
    """Which of KINDS the source at `path` is; raises DataError with what is understood."""
    for name in _MODULES:
        if kind == name or (kind == "auto" and _module(name).recognises(path)):
            return name
    found = (
        "nothing"
        if not path.exists()
        else "a folder"
        if path.is_dir()
        else "a file"
        if path.is_file()
        else "a pipe or a device"
    )
    understood = [_module(name).WHAT for name in reversed(_MODULES)]
    raise DataError(
        f"{one_line(str(path))}: found {found}, expected {', '.join(understood[:-1])} or "
        f"{understood[-1]}"
    )


def open_source(path: Path, kind: str, options: "SourceOptions") -> "ImageSource":
    """List the images of the source at `path`.

    Raises DataError for what is damaged or of no known kind, ChoiceError where `options` have to say
    more, UnsafeError for what would run code or lead to files elsewhere.
    """
    source: ImageSource = _module(find_kind(path, kind)).read(path, options)
    if not source.splits.get("train"):
        raise DataError(f"{one_line(str(path))} holds no images")
    return source


def _module(kind: str) -> Any:
    return import_module(f"rela.sources.{_MODULES[kind]}")
