"""`rela report`: one page about finished runs."""

from pathlib import Path
from typing import Any

import click

from cli_options import json_option, options_of, print_result
from stages.settings import ReportSettings


@click.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option(
    "--output",
    default="rela-report",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for report.html and the figures.",
)
@options_of(ReportSettings)
@json_option
@click.pass_obj
def report(
    workspace: Any, /, runs: tuple[str, ...], output: Path, as_json: bool, **options: Any
) -> None:
    """Write one page about RUNs, or about all finished ones: was the prior worth it?

    Accuracy against cost, courses of training, features, neighbours, priors, how to reproduce it all.
    The page is one file and needs no network.
    """
    from stages import report as stage

    settings = ReportSettings(**options)
    result = stage.report(
        workspace, runs, output, settings, lambda line: click.echo(line, err=True)
    )
    print_result(as_json, stage.format_result, result)
