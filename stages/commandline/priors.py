"""`rela priors`: which model gives the targets."""

from typing import Any

import click

from rela.stages.commandline.completion import datasets
from rela.stages.commandline.options import json_option, options_of, print_result
from rela.stages.settings import RankSettings


@click.group()
def priors() -> None:
    """Choose a prior: list what can be used here, rank what is embedded."""


@priors.command("list")
@json_option
@click.pass_obj
def list_priors(workspace: Any, /, as_json: bool) -> None:
    """Show which priors can be used here and now, and which are embedded for which data sets."""
    from rela.stages.priors import list as stage

    print_result(as_json, stage.format_result, stage.list_priors(workspace))


@priors.command("rank")
@click.argument("dataset", required=False, shell_complete=datasets)
@options_of(RankSettings)
@json_option
@click.pass_obj
def rank_priors(workspace: Any, /, dataset: str | None, as_json: bool, **options: Any) -> None:
    """Compare the embedded priors of DATASET by their representations, without training.

    Effective rank (RankMe; more is better), uniformity (less is better), k-NN accuracy where there
    are labels, and how alike the priors are (linear CKA, 0 to 1).
    """
    from rela.stages.priors import rank as stage

    data = workspace.dataset(dataset)
    print_result(as_json, stage.format_result, stage.rank(workspace, data, RankSettings(**options)))
