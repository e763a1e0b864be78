"""What commands share: options made from settings classes, and results for people or for scripts."""

import json
from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from rela.options import flag_name

_F = TypeVar("_F", bound=Callable[..., Any])


def options_of(
    settings: type, leave_out: tuple[str, ...] = (), complete: Mapping[str, Any] | None = None
) -> Callable[[_F], _F]:
    """One command-line option for each field of a settings class (see rela.options).

    `complete`: what a shell completes the fields of these names with (see cli_completion).
    """

    def decorate(function: _F) -> _F:
        for described in reversed(fields(settings)):
            if described.name not in leave_out:
                function = _option(described, (complete or {}).get(described.name))(function)
        return function

    return decorate


def _option(described: "Field[Any]", complete: Any = None) -> Callable[[_F], _F]:
    rules, flag = described.metadata, flag_name(described.name)
    if rules["kind"] is bool:
        return click.option(flag, is_flag=True, help=rules["help"])
    kind: Any = rules["kind"]
    several = kind is tuple
    if kind is Path:
        kind = click.Path(path_type=Path)
    elif rules["choices"]:
        kind = click.Choice(rules["choices"])
    elif kind in (int, float):
        ranges: dict[type, Any] = {int: click.IntRange, float: click.FloatRange}
        low, is_open = rules["minimum"], False
        if rules["above"] is not None:
            low, is_open = rules["above"], True
        number = ranges[kind](low, rules["maximum"], min_open=is_open)
        number.name = "integer" if kind is int else "number"
        kind = number
    shown = rules["shown"] or True
    if described.name == "prior":
        return prior_option(rules["help"], shown, complete)
    return click.option(
        flag,
        default=described.default,
        type=kind,
        multiple=several,
        show_default=shown,
        shell_complete=complete,
        help=rules["help"],
    )


def prior_option(help: str, shown: str | bool = False, complete: Any = None) -> Callable[[_F], _F]:
    """`--prior NAME`; given several times it names the combination, as `rela embed` makes it."""
    return click.option(
        "--prior",
        multiple=True,
        callback=_joined,
        show_default=shown,
        shell_complete=complete,
        help=help,
    )


def _joined(ctx: click.Context, option: click.Parameter, names: tuple[str, ...]) -> str | None:
    if len(names) < 2:
        return names[0] if names else None
    from rela.priors.prior import JOINT  # not while a shell completes: it brings NumPy

    return JOINT.join(names)


def json_option(function: _F) -> _F:
    """`--json`, as `as_json`."""
    flag = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    return flag(function)


def print_result(as_json: bool, words: Callable[[Any], str], result: Any) -> None:
    """A stage's result on standard output, for people or for scripts."""
    click.echo(json.dumps(asdict(result), default=str) if as_json else words(result))
