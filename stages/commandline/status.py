"""`rela status`: what a workspace holds, and what runs in it."""

import json
import shutil
import sys
import time
from dataclasses import asdict
from typing import Any

import click

from rela.stages.commandline.options import json_option, print_result

_HOME, _CLEAR_REST_OF_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


@click.command()
@click.option("--watch", is_flag=True, help="Show what runs, again and again, until Ctrl-C.")
@click.option(
    "--interval",
    metavar="SECONDS",
    default=2.0,
    type=click.FloatRange(0.1),
    help="How often --watch looks.",
)
@json_option
@click.pass_context
def status(ctx: click.Context, /, watch: bool, interval: float, as_json: bool) -> None:
    """Show data sets, representations, runs, what is running and what can be resumed.

    With --watch: where every training and embedding stands, who works on it, and the age of its last
    checkpoint. It reads the workspace's files alone, so any terminal and machine that sees them will do.
    """
    from rela.stages.workspace import status as stage

    if not watch:
        if ctx.get_parameter_source("interval") is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("--interval is for --watch")
        print_result(as_json, stage.format_status, stage.status(ctx.obj))
        return
    try:
        _watch(ctx.obj, interval, as_json)
    except KeyboardInterrupt:
        click.echo()


def _watch(workspace: Any, interval: float, as_json: bool) -> None:
    from rela.stages.workspace.activity import format_under_way, under_way

    is_terminal = sys.stdout.isatty() and not as_json
    if is_terminal:
        click.clear()
    while True:
        found = under_way(workspace)
        if as_json:
            click.echo(json.dumps(asdict(found)))
        elif is_terminal:
            columns, rows = shutil.get_terminal_size()
            text = f"{format_under_way(found, columns - 1)}\n\n{time.strftime('%H:%M:%S')}, Ctrl-C ends"
            lines = text.splitlines()[: rows - 1]
            # over what is there, so that nothing flickers
            frame = "".join(f"{line}{_CLEAR_REST_OF_LINE}\n" for line in lines)
            click.echo(f"{_HOME}{frame}{_CLEAR_BELOW}", nl=False)
        else:
            click.echo(f"{format_under_way(found)}\n")
        sys.stdout.flush()
        time.sleep(interval)
