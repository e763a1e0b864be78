"""`rela status --watch`: the running jobs of a workspace, refreshed."""

import json
import shutil
import sys
import time
from dataclasses import asdict

import click

from rela.errors import one_line
from rela.stages.commandline.options import lines_of
from rela.stages.workspace.activity import format_under_way, under_way
from rela.stages.workspace.workspace import Workspace

_HOME, _CLEAR_REST_OF_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def watch(workspace: Workspace, interval: float, as_json: bool) -> None:
    """Print running jobs every `interval` seconds until Ctrl-C; on a terminal, redraw in place."""
    if sys.stdout.isatty() and not as_json:
        click.clear()
    try:
        while True:
            _show(workspace, as_json)
            time.sleep(interval)
    except KeyboardInterrupt:
        click.echo()


def _show(workspace: Workspace, as_json: bool) -> None:
    found = under_way(workspace)
    if as_json:
        click.echo(json.dumps(asdict(found)))
    elif sys.stdout.isatty():
        columns, rows = shutil.get_terminal_size()
        text = (
            f"{format_under_way(found, columns - 1)}\n\n{time.strftime('%H:%M:%S')}, Ctrl-C to quit"
        )
        # each line overwrites the old one, so that nothing flickers
        lines = [
            f"{one_line(line)}{_CLEAR_REST_OF_LINE}\n" for line in text.splitlines()[: rows - 1]
        ]
        click.echo(f"{_HOME}{''.join(lines)}{_CLEAR_BELOW}", nl=False)
    else:
        click.echo(f"{lines_of(format_under_way(found))}\n")
    sys.stdout.flush()
