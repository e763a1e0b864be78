"""The request that made a data set, and the command that makes it again."""

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from rela.sources import is_url
from rela.sources.source import SourceOptions
from rela.stages.requests import Convert, command_of, words_of
from rela.stages.settings import ConvertSettings
from rela.stages.workspace.dataset import DataSet

# which images are read, not how they are stored: the digest of the sources covers them
SOURCE_SETTINGS = ("format", *(described.name for described in fields(SourceOptions)))


def command(request: Convert, **changed: Any) -> str:
    """`rela convert` with the options of `request` that are not the defaults, some of them changed."""
    return command_of("convert", request, **changed)


def asked(request: Convert, settings: ConvertSettings) -> dict[str, str]:
    """The options that say which images, with whole paths: not part of the meaning, see `deciding`."""
    sources = [str(s if is_url(s) else Path(s).absolute()) for s in request.sources]
    given = {name: getattr(settings, name) for name in SOURCE_SETTINGS}
    root = settings.image_root
    given |= {"source": sources[0], "image_root": root and root.absolute()}
    given["more"] = shlex.join(sources[1:]) or None
    return {name: str(value) for name, value in given.items() if value is not None}


def made_by(request: Convert, name: str) -> list[str]:
    """The words of the command that converts the same again from any folder."""
    root = request.image_root
    whole = [str(s) if is_url(s) else str(Path(s).absolute()) for s in request.sources]
    return words_of(
        "convert",
        request,
        source=whole[0],
        more=whole[1:],
        image_root=root and Path(root).absolute(),
        name=name,
        workers=None,
        replace=False,
    )


def request_of(dataset: DataSet) -> Convert:
    """The request that made a data set; without its options in one of an earlier version."""
    known = {**dataset.manifest.parameters, **dataset.asked}
    source = known.pop("source", None) or dataset.source or "path/to/images"
    more = shlex.split(known.pop("more", ""))
    options = {f.name: known.get(f.name) for f in fields(ConvertSettings)}
    if dataset.content.bad_images:
        options["on_bad_image"] = "skip"
    given = {name: value for name, value in options.items() if value is not None}
    return Convert(source, more, name=dataset.name, **given)
