"""Kinds of values on the command line: paths, texts and numbers."""

from pathlib import Path
from typing import Any

import click

from rela.options import empty
from rela.sources import is_url


class _Path(click.Path):
    """A path, or the text of a URL; an empty text would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As of the base class."""
        if is_url(value):  # a path would lose a slash
            return value
        return super().convert(_not_empty(value, param, ctx), param, ctx)

    def split_envvar_value(self, rv: str) -> list[str]:
        """A variable of the shell holds one path, which may contain a colon."""
        return [rv]


class Text(click.types.StringParamType):
    """Any text but an empty one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As of the base class."""
        return super().convert(_not_empty(value, param, ctx), param, ctx)


class Integers(click.IntRange):
    """Integers of a range, called so in messages."""

    name = "integer"


class Numbers(click.FloatRange):
    """Numbers of a range, called so in messages."""

    name = "number"


FOLDER, FILE = _Path(path_type=Path, file_okay=False), _Path(path_type=Path)
RANGES: dict[type, Any] = {int: Integers, float: Numbers}


def _not_empty(value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
    if value == "" and param is not None:
        name = (param.metavar or "").strip("[].") if isinstance(param, click.Argument) else ""
        raise click.UsageError(empty(name or param.opts[0], param.required), ctx)
    return value
