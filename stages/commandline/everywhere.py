"""`--workspace` and `--debug`: options of every command, before its name or after it."""

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
            callback=_set_workspace,
            expose_value=False,
            help="Where data sets, representations and runs are kept (or RELA_WORKSPACE).",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            callback=_set_debug,
            expose_value=False,
            help="Show the traceback of an error.",
        ),
    ]


def _set_workspace(ctx: click.Context, option: click.Parameter, values: tuple[Path, ...]) -> None:
    """Keep the only value; raises UsageError for several."""
    if not values:
        return
    program, typed = ctx.find_root(), click.core.ParameterSource.COMMANDLINE
    if ctx is not program and program.get_parameter_source("workspace") is typed:
        values = (program.params["workspace"], *values)
    places = {path.resolve(): one_line(str(path)) for path in values}
    if len(places) > 1 and not ctx.resilient_parsing:
        raise click.UsageError(
            f"--workspace is given twice, as {' and '.join(places.values())}; give one of them", ctx
        )
    program.params["workspace"] = values[-1]
    if ctx is program:
        return
    program.set_parameter_source("workspace", typed)
    if ctx.obj is not None:  # `rela doctor` works without it
        from rela.stages.workspace.workspace import Workspace

        ctx.obj = Workspace(values[-1])


def _set_debug(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    params = ctx.find_root().params
    params["debug"] = value or params.get("debug", False)
