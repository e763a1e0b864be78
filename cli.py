"""The command line, in the order of the flow: build a request, call a job, print the result.

Heavy modules are imported only when a command runs.
"""

import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rela.options import flag_name
from rela.stages.commandline import completion as completing
from rela.stages.commandline import kinds
from rela.stages.commandline.failures import Commands
from rela.stages.commandline.options import (
    Shown,
    is_typed,
    json_option,
    print_result,
    say,
    takes,
)
from rela.stages.commandline.process import prepare_process
from rela.stages.presets import PRESET_NAMES, preset

if TYPE_CHECKING:  # `rela --help` does without it
    from rela.stages import requests

_CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}
_NOT_USABLE, _DAMAGED = 1, 65


@click.group(cls=Commands, context_settings=_CONTEXT)
@click.version_option(package_name="rela", prog_name="rela")
@click.pass_context
def main(ctx: click.Context, workspace: Path, debug: bool) -> None:
    """Cheaper self-supervised training with targets from a public model.

    \b
        rela convert path/to/images
        rela embed --prior resnet18
        rela train
        rela eval
    """
    prepare_process()
    if ctx.invoked_subcommand == doctor.name:
        return  # doctor must work even if the imports of the other commands fail
    from rela.stages.workspace.workspace import Workspace

    ctx.obj = Workspace(workspace)


@main.command()
@takes("Convert")
def convert(workspace: Any, request: "requests.Convert") -> Shown:
    """Convert images to an FFCV data set.

    SRC is a folder with one subfolder per class, with train/ and val/ (or test/), or with unlabelled
    images, or an archive of such folders; or CIFAR's archive, MNIST's files, a Hugging Face data set,
    WebDataset shards, also by their URL, or a CSV of paths: see docs/data.md.
    """
    from rela.stages import convert as stage

    return stage.convert(workspace, request, say), stage.format_result


@main.command()
@takes("Embed")
def embed(workspace: Any, request: "requests.Embed") -> Shown:
    """Embed every image of DATASET with a prior, once.

    DATASET is the name of a data set, a folder of images, which is converted first, or the URL of shards.
    """
    from rela.stages.embed import combine as stage

    return stage.embed_priors(workspace, request, say), stage.format_result


@main.command()
@click.option(
    "--preset",
    "preset_name",
    type=click.Choice(PRESET_NAMES),
    show_default="none",
    help="The reference's input size, batch size, model and epochs for a data set; options override them.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Resume an interrupted run with its own configuration; --name chooses which. Only --devices, "
    "--logger, --checkpoint-minutes and --rank-timeout may change. With more --epochs: extend a finished "
    "run.",
)
@takes("Train")
def train(
    workspace: Any, request: "requests.Train", preset_name: str | None, resume: bool
) -> Shown:
    """Train a model on DATASET: first to predict the targets, then with the algorithm."""
    from rela.stages.train import train as stage
    from rela.training.settings import WHERE_TO_RUN

    given = {f.name: getattr(request, f.name) for f in fields(request) if is_typed(f.name)}
    given.pop("workspace", None)  # an option of every command, not of a run
    if not resume:
        chosen = replace(request, **{**preset(preset_name), **given})
        return stage.train(workspace, chosen, say), stage.format_result
    name, dataset = given.pop("name", None), given.pop("dataset", None)
    where = {option: given.pop(option) for option in WHERE_TO_RUN if option in given}
    epochs, verbose = given.pop("epochs", None), given.pop("verbose", False)
    if given or dataset or preset_name:
        flags = [*map(flag_name, given), *(["--preset"] if preset_name else [])]
        by_name = f"; use --name {dataset} to choose a run" if dataset and not name else ""
        raise click.UsageError(
            f"--resume uses the run's own configuration; leave out {', '.join(flags) or dataset}{by_name}"
        )
    return stage.resume(workspace, name, say, where, epochs, verbose), stage.format_result


@main.command("eval")
@takes("Evaluate")
def evaluate(workspace: Any, request: "requests.Evaluate") -> Shown:
    """Measure RUNs or a prior: k-NN, linear probes, fine-tuning, segmentation.

    Also shows the prior of each run, and mean and standard deviation over runs that differ only in their
    seed.
    """
    from rela.stages.evaluate import evaluate as stage
    from rela.stages.evaluate.table import format_report, summarize

    found = summarize(stage.evaluate(workspace, request, say))
    return found, partial(format_report, verbose=request.verbose)


@main.command()
@takes("Report")
def report(workspace: Any, request: "requests.Report") -> Shown:
    """Write one page about RUNs (default: all finished runs): was the prior worth it?

    It shows accuracy against cost, training curves, features, neighbours, priors, and how to reproduce
    the runs. The page is one file and needs no network.
    """
    from rela.stages.report import report as stage

    return stage.report(workspace, request, say), stage.format_result


@main.command()
@takes("Export")
def export(workspace: Any, request: "requests.Export") -> Shown:
    """Write the backbone of RUN, or features of RUN or of a prior, for other programs.

    Print the code that loads what was written.
    """
    from rela.stages.export import export as stage

    return stage.export(workspace, request, say), stage.format_result


@main.command()
@takes("Neighbors")
def neighbors(workspace: Any, request: "requests.Neighbors") -> Shown:
    """Find images most similar to IMAGE, near-duplicates or outliers, by cached representations."""
    from rela.stages.neighbors import neighbors as stage

    return stage.neighbors(workspace, request, say), stage.format_result


@main.group()
def priors() -> None:
    """Choose a prior: list those available here, rank those embedded."""


@priors.command("list")
@json_option
@click.pass_obj
def list_priors(workspace: Any, /, as_json: bool) -> None:
    """Show which priors are available here, and for which data sets each is embedded."""
    from rela.stages.priors import list as stage

    print_result(as_json, stage.format_result, stage.list_priors(workspace))


@priors.command("rank")
@takes("Rank")
def rank_priors(workspace: Any, request: "requests.Rank") -> Shown:
    """Compare the embedded priors of DATASET by their representations, without training.

    Effective rank (RankMe; more is better), uniformity (less is better), k-NN accuracy where there
    are labels, and the similarity of the priors (linear CKA, 0 to 1).
    """
    from rela.stages.priors import rank as stage

    return stage.rank(workspace, request), stage.format_result


@main.command("run")
@click.argument("recipe", metavar="RECIPE", type=kinds.FILE)
@click.option(
    "--set",
    "variables",
    metavar="NAME=VALUE",
    multiple=True,
    show_default="the recipe's [variables]",
    help="Fill {NAME} in the recipe; can be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Print the jobs and their estimated cost.")
@click.option(
    "--no-measure",
    is_flag=True,
    help="Estimate only from speeds measured in the workspace, without trial steps.",
)
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    /,
    recipe: Path,
    variables: tuple[str, ...],
    dry_run: bool,
    no_measure: bool,
    as_json: bool,
) -> None:
    """Run the jobs and sweeps of RECIPE: a TOML file, or one of rela's own by its name, such as small.

    Finished jobs are skipped. A failed job does not stop the others; the exit status is that of the first.
    """
    from rela.stages.recipe.jobs import assignments, load_recipe

    if no_measure and not dry_run:
        raise click.UsageError("--no-measure requires --dry-run")
    jobs = load_recipe(recipe, ctx.obj, assignments(variables), say)
    if dry_run:
        from rela.stages.recipe import plan as planning

        plan = planning.plan_recipe(ctx.obj, jobs, not no_measure, say)
        print_result(as_json, planning.format_plan, plan)
        return
    from rela.stages.recipe import run as stage

    result = stage.run_recipe(ctx.obj, jobs, say)
    print_result(as_json, stage.format_result, result)
    if result.exit_status:
        say(f"rela: {stage.describe_failures(result)}")
        ctx.exit(result.exit_status)


@main.command()
@click.option(
    "--output",
    default="rela-demo",
    type=kinds.FOLDER,
    help="Folder for images, workspace and plot.",
)
@click.option("--seeds", default=3, type=kinds.Integers(1), help="Seeds per configuration.")
@json_option
def demo(output: Path, seeds: int, as_json: bool) -> None:
    """Show the whole method on scikit-learn's handwritten digits, in a few minutes."""
    from rela.stages import demo as stage

    print_result(as_json, stage.format_result, stage.demo(output, seeds, say))


@main.command()
@click.argument("dataset", metavar="[DATASET]", required=False, shell_complete=completing.datasets)
@click.option("--watch", is_flag=True, help="Show running jobs and refresh until Ctrl-C.")
@click.option(
    "--interval",
    metavar="SECONDS",
    default=2.0,
    type=kinds.Numbers(0.1),
    help="Time between refreshes of --watch.",
)
@json_option
@click.pass_obj
def status(
    workspace: Any, /, dataset: str | None, watch: bool, interval: float, as_json: bool
) -> None:
    """Show data sets, representations, runs, what is running and what can be resumed.

    With DATASET: the summary that `rela convert` printed. With --watch: the progress of every training and
    embedding, its processes and the age of its last checkpoint, on any machine that sees the workspace.
    """
    if watch and dataset:
        raise click.UsageError("--watch shows the whole workspace; leave out DATASET")
    if watch:
        from rela.stages.commandline.watch import watch as show

        show(workspace, interval, as_json)
        return
    from rela.stages.workspace import status as stage

    if is_typed("interval"):
        raise click.UsageError("--interval requires --watch")
    if dataset:
        from rela.stages.workspace import summary

        found = workspace.dataset(dataset)
        print_result(as_json, summary.format_described, summary.describe(found))
        return
    print_result(as_json, stage.format_status, stage.status(workspace))


@main.command("rm")
@takes("Remove")
def remove(workspace: Any, request: "requests.Remove") -> Shown:
    """Remove data sets, representations and runs; refuse if other things depend on them, and name those.

    NAME is that of `rela cache ls`, a path, or KIND:NAME where two kinds share it, such as run:photos.
    """
    from rela.stages import remove as stage

    return stage.remove(workspace, request), stage.format_result


@main.group()
def cache() -> None:
    """List, verify and clean the artifacts of the workspace."""


@cache.command("ls")
@json_option
@click.pass_obj
def list_cache(workspace: Any, /, as_json: bool) -> None:
    """Show every artifact with its size, age and last use, and leftovers of interrupted jobs."""
    from rela.stages.workspace import cache as stage

    print_result(as_json, stage.format_listing, stage.list_cache(workspace))


@cache.command("verify")
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=completing.artifacts)
@json_option
@click.pass_context
def verify_cache(ctx: click.Context, /, names: tuple[str, ...], as_json: bool) -> None:
    """Read every byte of the named artifacts (default: all) and compare it with the manifests.

    Exits with status 65 if anything is damaged.
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
    type=kinds.Numbers(0),
    help="Remove what has not been used for this many days.",
)
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
@json_option
@click.pass_obj
def collect_garbage(workspace: Any, /, unused_days: float, dry_run: bool, as_json: bool) -> None:
    """Remove representations and targets that have not been used for long; they can be computed again.

    Also removes leftovers of killed jobs. Keeps data sets, runs, what a running job uses, and what an
    interrupted run needs to resume.
    """
    from rela.stages.workspace import cache as stage

    print_result(as_json, stage.format_removed, stage.collect(workspace, unused_days, dry_run))


@main.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, /, as_json: bool) -> None:
    """Check packages and machine, and print the command that fixes each problem.

    Includes decoding an image and computing on each GPU. Exits with status 1 if rela cannot be used here;
    warnings and missing extras do not count.
    """
    from rela.stages.doctor import doctor as stage

    health = stage.examine(ctx.find_root().params["workspace"])
    print_result(as_json, stage.format_health, health)
    if not health.usable:
        ctx.exit(_NOT_USABLE)


main.add_command(completing.completion)
if __name__ == "__main__":
    sys.exit(main())
