"""Images of any kind (folders, archives, tables) to lists of samples.

In: a path. Out: an `ImageSource`, splits of samples with one class list. Begin with `source.py`.

A kind of source is one module with `WHAT` it is in words, `recognises(path)` and `read(path, options)`,
and one line in `_MODULES`. None decodes an image or writes anything. Each is imported only when asked.
"""

import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError, DataError, one_line
from rela.options import flag_name

if TYPE_CHECKING:  # which brings NumPy and Pillow
    from rela.sources.source import ImageSource, Listed, SourceOptions

_MODULES = {  # by what --format calls them, in the order in which they are asked
    "cifar": "cifar",
    "huggingface": "hugging_face",
    "webdataset": "webdataset",
    "csv": "csv_table",
    "folder": "image_folder",
}
KINDS = tuple(_MODULES)
_OPTIONS = {  # what can be said about a source of some kind, beside what it is
    "csv": ("image_column", "label_column", "image_root"),
    "huggingface": ("image_column", "label_column"),
}
_TELLING = ("huggingface", "webdataset")  # which of them read files from end to end


def find_kind(path: Path, kind: str = "auto") -> str:
    """Which of KINDS the source at `path` is; raises DataError with what is understood."""
    for name in _MODULES:
        if kind == name or (kind == "auto" and _module(name).recognises(path)):
            return name
    understood = [_module(name).WHAT for name in reversed(_MODULES)]
    if re.match(r"[a-z][a-z0-9+]*:/", str(path)):
        raise DataError(
            f"{one_line(str(path))} is an address; download what is there, then convert the file or folder"
        )
    raise DataError(
        f"{one_line(str(path))}: found {_what_is_at(path)}, expected {', '.join(understood[:-1])} or "
        f"{understood[-1]}"
    )


def _what_is_at(path: Path) -> str:
    if not path.exists():
        return "nothing"
    if path.is_dir():
        return "a folder"
    return "a file" if path.is_file() else "a pipe or a device"


def open_source(
    path: Path, kind: str, options: "SourceOptions", listed: "Listed | None" = None
) -> "ImageSource":
    """List the images of the source at `path`; `listed` hears how far that is, where it may take long.

    Raises DataError for what is damaged or of no known kind, ChoiceError where `options` have to say
    more, UnsafeError for what would run code or lead to files elsewhere.
    """
    found = find_kind(path, kind)
    given = [f.name for f in fields(options) if getattr(options, f.name) is not None]
    useless = [name for name in given if name not in _OPTIONS.get(found, ())]
    if useless:
        flags = ", ".join(map(flag_name, useless))
        raise ChoiceError(
            f"{flags}: means nothing to {one_line(str(path))}, which is read as {found}; leave it out, or "
            "say what it is with --format"
        )
    hears = () if listed is None or found not in _TELLING else (listed,)
    source: ImageSource = _module(found).read(path, options, *hears)
    if not source.splits.get("train"):
        raise DataError(f"{one_line(str(path))} holds no images")
    return source


def _module(kind: str) -> Any:
    return import_module(f"rela.sources.{_MODULES[kind]}")
