"""Request classes → click arguments and options; results as text or JSON."""

import errno
import functools
import inspect
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import MISSING, Field, asdict, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from rela.errors import one_line
from rela.options import flag_name, kind_of, misfit, with_needed_code
from rela.stages.commandline import completion, everywhere
from rela.stages.commandline.kinds import FILE, FOLDER, RANGES, Text

Shown = tuple[Any, Callable[[Any], str]]  # a result, and the function that formats it


# names of options in other programs
_CALLED_ELSEWHERE = {
    "device": ("devices",), "gpu": ("devices", "device"), "gpus": ("devices", "device"),
    "num-workers": ("workers", "threads"), "workers": ("threads",), "learning-rate": ("lr",),
    "wd": ("weight-decay",), "bs": ("batch-size",), "overwrite": ("replace", "force"),
    "force": ("replace",), "format": ("to",), "model": ("prior",), "size": ("image-size", "max-side"),
    "out": ("output",), "run": ("prior",), "resize": ("max-side",), "checkpoint": ("weights",),
}  # fmt: skip


_COMMANDS, _PROGRAM = re.compile(r"`rela [^`]*"), re.compile(r"(^`|&& )rela ")


class RequestCommand(click.Command):
    """A command with the fields of a request as options; the request is imported when they are needed."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._own: list[click.Parameter] = vars(self).pop("params")

    @functools.cached_property
    def params(self) -> list[click.Parameter]:  # type: ignore[override]
        """Its own options, those of the request, --json, and those of every command."""
        name = getattr(self.callback, "request_name", None)
        of_request = [] if name is None else map(_parameter, _own_first(_request_class(name)))
        return [*self._own[:-1], *of_request, *self._own[-1:], *everywhere.options()]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raises UsageError that says how the command is called, for what it does not take."""
        ctx.allow_extra_args = True
        typed = [*args]
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise self._meant(error, ctx) from None
        ctx.allow_extra_args = False
        if rest and not ctx.resilient_parsing:
            more = f" and {len(rest) - 3} more" if len(rest) > 3 else ""
            takes = " and ".join(p.make_metavar(ctx) for p in self._arguments) or "no name"
            from rela.sources.file_patterns import shards_of_range

            first = next((word for word in typed if word in map(str, ctx.params.values())), "")
            if (pattern := shards_of_range([first, *rest])) is not None:
                words = [pattern if word == first else word for word in typed if word not in rest]
                command = shlex.join(["rela", str(ctx.info_name), *words])
                raise click.UsageError(
                    f"the shell made {len(rest) + 1} names of one pattern; quote it: `{command}`",
                    ctx,
                )
            raise click.UsageError(
                f"unexpected {', '.join(map(one_line, rest[:3]))}{more}: {ctx.info_name} takes {takes} and "
                "options, which begin with --; run it once for each",
                ctx,
            )
        return rest

    @property
    def _arguments(self) -> list[click.Argument]:
        return [p for p in self.params if isinstance(p, click.Argument)]

    def _meant(self, error: click.NoSuchOption, ctx: click.Context) -> click.UsageError:
        """The error, with the option or the argument that was probably meant."""
        name = error.option_name.lstrip("-")
        for argument in self._arguments:
            shown = argument.make_metavar(ctx).strip("[].")
            if name in (argument.name, shown.lower()):
                return click.UsageError(
                    f"no option {error.option_name}: {shown} is given by itself, as in rela "
                    f"{ctx.info_name} {shown}",
                    ctx,
                )
        known = {option for p in self.params for option in p.opts}
        for other in _CALLED_ELSEWHERE.get(name, ()):
            if f"--{other}" in known:
                meant = f"no option {error.option_name}; did you mean --{other}?"
                return click.UsageError(meant, ctx)
        return error


def takes(request_name: str) -> Callable[[Callable[..., Shown]], Callable[..., Any]]:
    """Turn `job(workspace, request)` into a RequestCommand: the fields of its request, and --json.

    `request_name` is a class of rela.stages.requests. The command prints the job's result. Options that
    are not fields become keywords of the job.
    """

    def decorate(job: Callable[..., Shown]) -> Callable[..., Any]:
        @click.pass_obj
        @functools.wraps(job)
        def command(workspace: Any, /, as_json: bool, **values: Any) -> None:
            request = _request_class(request_name)
            others = {n: values.pop(n) for n in values.keys() - {f.name for f in fields(request)}}
            result, words = job(workspace, request(**values), **others)
            print_result(as_json, words, result)

        command.request_name = request_name  # type: ignore[attr-defined]
        return json_option(command)

    return decorate


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`, as `as_json`."""
    flag = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    return flag(function)


def print_result(as_json: bool, words: Callable[[Any], str], result: Any) -> None:
    """Print a result on standard output, as text or as JSON."""
    click.echo(json.dumps(asdict(result), default=str) if as_json else lines_of(words(result)))


def say(message: str) -> None:
    """Print a line for the user on standard error; a terminal that was closed does not end the job."""
    try:
        click.echo(lines_of(message), err=True)
    except OSError as error:
        if error.errno != errno.EIO:
            raise


def lines_of(text: str) -> str:
    """The text with control characters escaped, but for line breaks; its commands have the workspace.

    Names of files, classes and runs come from elsewhere and may hold anything. All that is printed for
    people passes here.
    """
    context = click.get_current_context(silent=True)
    given = "" if context is None else everywhere.typed_workspace(context)

    def placed(found: re.Match[str]) -> str:
        return _PROGRAM.sub(lambda program: program[0] + given, found[0])

    lines = with_needed_code(text).split("\n")
    return "\n".join(_COMMANDS.sub(placed, one_line(line)) for line in lines)


def is_typed(option: str) -> bool:
    """Whether the running command was given this option, by its parameter's name."""
    source = click.get_current_context().get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


def _request_class(name: str) -> Any:
    return getattr(import_module("rela.stages.requests"), name)


def _own_first(request: type) -> list["Field[Any]"]:
    """The fields with options: those of the class, then those of its bases in their order."""
    known = {f.name: f for f in fields(request) if f.init and f.metadata}
    names = (name for of in request.__mro__ for name in inspect.get_annotations(of))
    return [known[name] for name in dict.fromkeys(names) if name in known]


def _parameter(described: "Field[Any]") -> click.Parameter:
    rules = described.metadata
    complete = None if rules["complete"] is None else getattr(completion, rules["complete"])
    kind = kind_of(described)
    if kind is Path:
        kind = FOLDER if rules.get("metavar") == "DIRECTORY" else FILE
    elif kind in (str, tuple) and described.name != "prior":
        kind = Text()
    if "argument" in rules:
        return click.Argument(
            [described.name],
            metavar=rules["argument"],
            type=kind,
            nargs=-1 if described.default == () else 1,
            required=described.default is MISSING,
            shell_complete=complete,
        )
    # several priors name the combination that `rela embed` makes
    is_prior = described.name == "prior"
    if kind is bool:
        return click.Option([flag_name(described.name)], is_flag=True, help=rules["help"])
    if rules["choices"]:
        kind = _with_own_message(click.Choice(rules["choices"]), described)
    elif kind in RANGES:
        low = rules["minimum"] if rules["above"] is None else rules["above"]
        number = RANGES[kind](low, rules["maximum"], min_open=rules["above"] is not None)
        kind = _with_own_message(number, described)
    several = rules["several"]
    return click.Option(
        [flag_name(described.name)],
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


def _with_own_message(
    kind: "click.ParamType[Any]", described: "Field[Any]"
) -> "click.ParamType[Any]":
    """The type, whose message for a wrong value is the one of Python and of recipes."""
    convert = kind.convert

    def checked(value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return convert(value, param, ctx)
        except click.BadParameter:
            raise click.UsageError(misfit(described, value), ctx) from None

    kind.convert = checked  # type: ignore[method-assign]
    return kind


def _joined(ctx: click.Context, option: click.Parameter, names: tuple[str, ...]) -> str | None:
    if len(names) < 2:
        return names[0] if names else None
    from rela.priors.prior import JOINT  # imports NumPy, so not at completion time

    return JOINT.join(names)
