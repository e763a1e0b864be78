"""Images of any kind (folders, archives, tables) to lists of samples.

In: a path. Out: an `ImageSource`, splits of samples with one class list. Begin with `source.py`.

A new kind of source is one module with what `SourceKind` lists, and its line in `KINDS`. It decodes no
image and writes nothing. Modules are imported when a source is looked at: this package is light.
"""

import os
import re
import shlex
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rela.errors import ChoiceError, DataError, RelaError, one_line
from rela.options import flag_name

if TYPE_CHECKING:  # imports NumPy and Pillow
    from rela.sources.source import ImageSource, ListingProgress, SourceKind, SourceOptions

KINDS = {  # value of --format → module, in the order in which they are tried
    "cifar": "cifar",
    "idx": "idx",
    "huggingface": "hugging_face",
    "imagenet": "archives.imagenet",
    "archive": "archives.image_archive",
    "webdataset": "webdataset",
    "csv": "csv_table",
    "folder": "image_folder",
}


def find_kind(path: Path, kind: str = "auto") -> str:
    """The name in `KINDS` of the source at `path`; raises DataError listing the kinds if none matches."""
    from rela.sources.splits.other_files import unpacking
    from rela.sources.splits.tree import is_image_name, refuse_workspace

    refuse_workspace(path)
    for name in KINDS:
        if kind == name or (kind == "auto" and _module(name).recognises(path)):
            return name
    if re.match(r"[a-z][a-z0-9+]*:/", str(path)):
        raise DataError(
            f"{one_line(str(path))} is a URL, of which only `rela convert` and `rela embed` read .tar and "
            ".parquet shards; download others first"
        )
    if path.is_file() and is_image_name(path.name):
        command = one_line(shlex.join(["rela", "convert", str(path.parent)]))
        raise DataError(f"{one_line(str(path))} is a single image; convert its folder: `{command}`")
    if path.is_file() and (program := unpacking(path.name)):
        command = one_line(shlex.join([*program.split(), str(path)]))
        raise DataError(
            f"{one_line(str(path))} is an archive that rela does not read; unpack it with `{command}`, then "
            "convert the folder"
        )
    *first, last = [_module(name).WHAT for name in reversed(KINDS)]
    raise DataError(
        f"{one_line(str(path))}: found {_what_is_at(path)}, expected {', '.join(first)} or {last}"
    )


def _what_is_at(path: Path) -> str:
    if not path.exists():
        return "nothing"
    if path.is_dir():
        return "a folder"
    return "a file" if path.is_file() else "a pipe or a device"


def open_source(
    path: Path,
    kind: str,
    options: "SourceOptions",
    on_progress: "ListingProgress" = lambda more, total: None,
) -> "ImageSource":
    """List the images of the source at `path`.

    Raises DataError for a damaged source or an unknown kind, ChoiceError if `options` are ambiguous or do
    not apply, UnsafeError if reading it would run code or lead to files elsewhere.
    """
    name = find_kind(path, kind)
    source = _checked(name, options, str(path)).read(path, options, on_progress)
    if not source.splits.get("train"):
        raise DataError(f"{one_line(str(path))} holds no images")
    return source.without_unlabelled_val().with_alike_classes_named()


def read_shard(
    file: Path, name: str, kind: str, options: "SourceOptions", url: str
) -> "ImageSource":
    """The images of one shard, the copy `file` of `url`, all in train; `name` is as in `Shard`.

    Raises as `open_source`, with the URL in place of the copy.
    """
    try:
        alone = replace(options, split=None)
        source = _checked(kind, alone, url).read(file, alone, lambda more, total: None)
    except RelaError as error:
        raise type(error)(str(error).replace(str(file), one_line(url))) from error
    folder = Path(name).parent
    samples = [replace(s, path=str(folder / s.path)) for s in source.splits["train"]]
    stray = [str(folder / path) for path in source.stray_files]
    return replace(source, splits={"train": samples}, stray_files=stray)


def _checked(kind: str, options: "SourceOptions", where: str) -> "SourceKind":
    """The module of a kind; raises ChoiceError for options that do not apply to it."""
    module = _module(kind)
    given = [f.name for f in fields(options) if getattr(options, f.name) is not None]
    if useless := [option for option in given if option not in module.OPTIONS]:
        does = "does" if len(useless) == 1 else "do"
        raise ChoiceError(
            f"{', '.join(map(flag_name, useless))} {does} not apply to {one_line(where)} (format "
            f"{kind}); remove it, or choose another --format"
        )
    return module


def is_url(source: object) -> bool:
    """Whether it is the URL of shards in a store, not the path of files here."""
    return isinstance(source, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source) is not None


def default_name(path: str | Path) -> str:
    """The name of a data set made from `path`: a folder's name, or a file's without its suffix."""
    from rela.sources.file_patterns import fixed_part, is_pattern

    if isinstance(path, str) and is_url(path):
        inside = Path(path.partition("://")[2])
        return (fixed_part(inside) if is_pattern(inside) else inside.with_suffix("")).name
    path = Path(path)
    if is_pattern(path):
        return fixed_part(path).resolve().name
    name = Path(os.path.realpath(path)).name
    if path.is_file():
        suffixes = (suffix for kind in KINDS for suffix in _module(kind).SUFFIXES)
        longest = max((len(s) for s in suffixes if name.lower().endswith(s)), default=0)
        name = name[: len(name) - longest]
    return name


def _module(kind: str) -> "SourceKind":
    return cast("SourceKind", import_module(f"rela.sources.{KINDS[kind]}"))
