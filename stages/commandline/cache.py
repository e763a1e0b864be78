"""`rela cache`: what the workspace keeps."""

from typing import Any

import click

from rela.stages.commandline.completion import artifacts
from rela.stages.commandline.options import json_option, print_result

_DAMAGED = 65


@click.group()
def cache() -> None:
    """List, check and clean what the workspace keeps."""


@cache.command("ls")
@json_option
@click.pass_obj
def list_cache(workspace: Any, /, as_json: bool) -> None:
    """Show every artifact with its size, age and last use, and what is left of interrupted jobs."""
    from rela.stages.workspace import cache as stage

    print_result(as_json, stage.format_listing, stage.list_cache(workspace))


@cache.command("verify")
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=artifacts)
@json_option
@click.pass_context
def verify_cache(ctx: click.Context, /, names: tuple[str, ...], as_json: bool) -> None:
    """Read every byte of the named artifacts (default: all) and compare it with the manifests.

    Ends with status 65 if anything is damaged.
    """
    from rela.stages.workspace import cache as stage

    found = stage.verify(ctx.obj, names)
    print_result(as_json, stage.format_verification, found)
    if found.damaged:
        ctx.exit(_DAMAGED)


@cache.command("gc")
@click.option(
    "--unused-days",
    default=30.0,
    type=click.FloatRange(0),
    help="Remove what was last used longer ago.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@json_option
@click.pass_obj
def collect_garbage(workspace: Any, /, unused_days: float, dry_run: bool, as_json: bool) -> None:
    """Remove representations and targets that were not used for long: they can be computed again.

    Also removes what killed jobs left behind. Data sets, runs, what a job uses at the moment and
    what an interrupted run needs to go on stay.
    """
    from rela.stages.workspace import cache as stage

    print_result(as_json, stage.format_removed, stage.collect(workspace, unused_days, dry_run))
