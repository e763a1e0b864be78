"""The request that made a data set, and the command that makes it again."""

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError
from rela.sources import default_name, is_url
from rela.sources.file_patterns import shards_of_range
from rela.sources.source import SourceOptions
from rela.stages.requests import Convert, command_of, words_of
from rela.stages.settings import ConvertSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.workspace import check_name, slug

_LONGEST_NAME = 40  # of those that are proposed
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


def name_of(request: Convert) -> str:
    """The name of the data set; raises ChoiceError if it cannot be one."""
    if request.more and not request.name:
        name = slug("-".join(map(default_name, request.sources)))
        raise ChoiceError(
            by_one_pattern(request)
            or f"{len(request.sources)} sources make one data set; give it a name, as in "
            f"`{command(request, name=name if len(name) <= _LONGEST_NAME else 'all')}`"
        )
    return check_name(request.name or slug(default_name(request.source)), "data set")


def by_one_pattern(request: Convert) -> str | None:
    """What to say of shards that a shell made of one pattern; None of others."""
    pattern = shards_of_range([*map(str, request.sources)])
    if pattern is None:
        return None
    return (
        f"the shell made {len(request.sources)} sources of one pattern; quote it: "
        f"`{command(request, source=pattern, more=[])}`"
    )


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
