"""Request classes to click: arguments, options, and results for people or for scripts."""

import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import MISSING, Field, asdict, fields
from pathlib import Path
from typing import Any

import click

from rela.options import flag_name
from rela.stages.commandline import completion

Shown = tuple[Any, Callable[[Any], str]]  # a result, and what puts it into words
_RANGES: dict[type, Any] = {int: click.IntRange, float: click.FloatRange}


def takes(request: type) -> Callable[[Callable[..., Shown]], Callable[..., Any]]:
    """Make a command of `job(workspace, request)`: the fields of the request class, and --json.

    The command prints the result that the job returns. Its other options are keywords of the job.
    """

    def decorate(job: Callable[..., Shown]) -> Callable[..., Any]:
        parameters = _own_first(request)
        names = {described.name for described in parameters}

        @click.pass_obj
        @functools.wraps(job)
        def command(workspace: Any, /, as_json: bool, **values: Any) -> None:
            others = {name: values.pop(name) for name in values.keys() - names}
            result, words = job(workspace, request(**values), **others)
            print_result(as_json, words, result)

        command = json_option(command)
        for described in reversed(parameters):
            command = _parameter(described)(command)
        return command

    return decorate


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`, as `as_json`."""
    flag = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    return flag(function)


def print_result(as_json: bool, words: Callable[[Any], str], result: Any) -> None:
    """Print a result on standard output, for people or for scripts."""
    click.echo(json.dumps(asdict(result), default=str) if as_json else words(result))


def say(message: str) -> None:
    """Print a line for the user on standard error."""
    click.echo(message, err=True)


def is_typed(option: str) -> bool:
    """Whether the running command was given this option, by its parameter's name."""
    source = click.get_current_context().get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


def _own_first(request: type) -> list["Field[Any]"]:
    """The fields that the command line knows: those of the class, then those of its bases in their order."""
    known = {f.name: f for f in fields(request) if f.init and "kind" in f.metadata}
    names = (name for of in request.__mro__ for name in inspect.get_annotations(of))
    return [known[name] for name in dict.fromkeys(names) if name in known]


def _parameter(described: "Field[Any]") -> Callable[[Any], Any]:
    rules = described.metadata
    complete = None if rules["complete"] is None else getattr(completion, rules["complete"])
    kind: Any = rules["kind"]
    if kind is Path:
        is_folder = rules.get("metavar") == "DIRECTORY"
        kind = click.Path(path_type=Path, file_okay=not is_folder)
    if "argument" in rules:
        return click.argument(
            described.name,
            metavar=rules["argument"],
            type=kind,
            nargs=-1 if described.default == () else 1,
            required=described.default is MISSING,
            shell_complete=complete,
        )
    is_prior = described.name == "prior"  # several name the combination, as `rela embed` makes it
    if rules["kind"] is bool:
        return click.option(flag_name(described.name), is_flag=True, help=rules["help"])
    if rules["choices"]:
        kind = click.Choice(rules["choices"])
    elif kind in _RANGES:
        low = rules["minimum"] if rules["above"] is None else rules["above"]
        number = _RANGES[kind](low, rules["maximum"], min_open=rules["above"] is not None)
        number.name = "integer" if kind is int else "number"
        kind = number
    several = rules["several"]
    return click.option(
        flag_name(described.name),
        default=None if described.default is MISSING or is_prior else described.default,
        type=kind,
        multiple=several or is_prior,
        callback=_joined if is_prior and not several else None,
        required=rules["required"],
        metavar=rules["metavar"],
        show_default=rules["shown"] or True,
        shell_complete=complete,
        help=rules["help"],
    )


def _joined(ctx: click.Context, option: click.Parameter, names: tuple[str, ...]) -> str | None:
    if len(names) < 2:
        return names[0] if names else None
    from rela.priors.prior import JOINT  # not while a shell completes: it brings NumPy

    return JOINT.join(names)
