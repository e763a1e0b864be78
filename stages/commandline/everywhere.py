"""`--workspace` and `--debug`: options of every command, before its name or after it."""

import shlex
from pathlib import Path

import click

from rela.errors import one_line
from rela.stages.commandline.kinds import FOLDER

NAMES = ("workspace", "debug")


def options(of_program: bool = False) -> list[click.Option]:
    """Both options, `of_program` before the command, else after it.

    Their values are those of the outermost context, wherever they were given.
    """
    return [
        click.Option(
            ["--workspace"],
            multiple=True,  # to see it given twice; there is one value
            envvar="RELA_WORKSPACE" if of_program else None,
            default=("./workspace",) if of_program else None,
            show_default=of_program or "./workspace",
            type=FOLDER,
            callback=_one_workspace,
            expose_value=of_program,
            help="Where data sets, representations and runs are kept (or RELA_WORKSPACE).",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            callback=_debug,
            expose_value=of_program,
            help="Show the traceback of an error.",
        ),
    ]


def typed_workspace(ctx: click.Context) -> str:
    """`--workspace PLACE ` as it was typed; empty if it was not."""
    program = ctx.find_root()
    if program.get_parameter_source("workspace") is not click.core.ParameterSource.COMMANDLINE:
        return ""
    place = program.params["workspace"]  # several before the command, one after it
    one = place[-1] if isinstance(place, tuple) else place
    return f"--workspace {shlex.quote(one_line(str(one)))} "


def _one_workspace(
    ctx: click.Context, option: click.Parameter, values: tuple[Path, ...]
) -> Path | None:
    """The only value, kept in the outermost context; raises UsageError for several."""
    program, typed = ctx.find_root(), click.core.ParameterSource.COMMANDLINE
    if not values:
        return None
    if ctx is not program and program.get_parameter_source("workspace") is typed:
        values = (program.params["workspace"], *values)
    places = {path.resolve(): one_line(str(path)) for path in values}
    if len(places) > 1 and not ctx.resilient_parsing:
        raise click.UsageError(
            f"--workspace is given twice, as {' and '.join(places.values())}; give one of them", ctx
        )
    if ctx is not program:
        program.params["workspace"] = values[-1]
        program.set_parameter_source("workspace", typed)
    if ctx.obj is not None:  # `rela doctor` works without it
        from rela.stages.workspace.workspace import Workspace

        ctx.obj = Workspace(values[-1])
    return values[-1]


def _debug(ctx: click.Context, option: click.Parameter, value: bool) -> bool:
    if value and ctx.parent is not None:
        ctx.find_root().params["debug"] = True
    return value
