"""`rela export`, `rela neighbors`, `rela report`: what one does with a trained model and its features."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from rela.stages.commandline.options import json_option, options_of, print_result
from rela.stages.settings import (
    EmbedSettings,
    ExportSettings,
    NeighborsSettings,
    PriorSettings,
    ReportSettings,
)


def _say(message: str) -> None:
    click.echo(message, err=True)


def _taken(options: dict[str, Any], settings: type) -> Any:
    """A settings object from its own options, which are taken out."""
    return settings(**{f.name: options.pop(f.name) for f in fields(settings) if f.name in options})


@click.command()
@click.argument("run", required=False)
@options_of(ExportSettings)
@options_of(EmbedSettings, leave_out=("crops",))
@json_option
@click.pass_obj
def export(workspace: Any, /, run: str | None, as_json: bool, **options: Any) -> None:
    """Write the backbone of RUN, or its features of a data set, for other programs.

    What loads the file is printed. Embedding options are for --to hdf5-features.
    """
    from rela.stages import export as stage

    settings, embedding = _taken(options, ExportSettings), _taken(options, EmbedSettings)
    result = stage.export(workspace, workspace.run(run), settings, embedding, _say)
    print_result(as_json, stage.format_result, result)


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@options_of(NeighborsSettings)
@options_of(PriorSettings)
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@json_option
@click.pass_obj
def neighbors(workspace: Any, /, image: Path, device: str, as_json: bool, **options: Any) -> None:
    """Find the images of a data set that are most like IMAGE, by cached representations."""
    from rela.stages import neighbors as stage

    settings, described = _taken(options, NeighborsSettings), _taken(options, PriorSettings)
    result = stage.neighbors(workspace, image, settings, described, device, _say)
    print_result(as_json, stage.format_result, result)


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
    from rela.stages.report import report as stage

    settings = ReportSettings(**options)
    result = stage.report(workspace, runs, output, settings, _say)
    print_result(as_json, stage.format_result, result)
