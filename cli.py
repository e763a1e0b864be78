"""The command line: parse, call a stage, print. Nothing heavy is imported until a command runs."""

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from rela.distributed.ranks import current_ranks, end_with_launcher
from rela.errors import RelaError, failure_of
from rela.options import flag_name
from rela.pipeline.errors import PipelineError
from rela.pipeline.processes import AskedToMakeRoom, making_room
from rela.priors import KINDS
from rela.stages.commandline import completion as completing
from rela.stages.commandline.cache import cache
from rela.stages.commandline.doctor import doctor
from rela.stages.commandline.options import json_option, options_of, print_result, prior_option
from rela.stages.commandline.priors import priors
from rela.stages.commandline.results import export, neighbors, report
from rela.stages.commandline.status import status
from rela.stages.settings import (
    PRESET_NAMES,
    ConvertSettings,
    EmbedSettings,
    EvaluateSettings,
    PriorSettings,
    preset,
)
from rela.training.settings import TrainSettings

_CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}
_INTERRUPTED, _TRY_AGAIN = 130, 75
_NAMES_OF_PRIORS = ", ".join(
    kind.PREFIX + kind.METAVAR if kind.PREFIX else f"A torchvision model ({kind.EXAMPLE})"
    for kind in KINDS.values()
)
_PRIOR_OPTIONS = tuple(described.name for described in fields(PriorSettings))


def _say(message: str) -> None:
    click.echo(message, err=True)


def _which_process() -> str:
    ranks = current_ranks()
    return f" (process {ranks.rank + 1} of {ranks.world_size})" if ranks.world_size > 1 else ""


class _Commands(click.Group):
    """Turns the exceptions of stages into one line on stderr and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with making_room():
                return super().invoke(ctx)
        except click.NoSuchOption as error:
            if error.option_name not in ("--workspace", "--debug"):
                raise
            raise click.UsageError(
                f"{error.option_name} stands before the command: rela {error.option_name} "
                f"{'DIRECTORY ' if error.option_name == '--workspace' else ''}{ctx.invoked_subcommand} ...",
                error.ctx,
            ) from error
        except (RelaError, PipelineError, OSError, MemoryError, RuntimeError) as error:
            failure = failure_of(error)
            if ctx.params.get("debug") or failure is None:
                raise
            _say(f"rela{_which_process()}: {failure[0]}")
            ctx.exit(failure[1])
        except KeyboardInterrupt:
            _say("rela: interrupted; the same command goes on from what is finished")
            ctx.exit(_INTERRUPTED)
        except AskedToMakeRoom as signal:
            _say(f"rela: {signal}; the same command goes on from what is finished")
            ctx.exit(_TRY_AGAIN)


@click.group(cls=_Commands, context_settings=_CONTEXT)
@click.option(
    "--workspace",
    envvar="RELA_WORKSPACE",
    default="./workspace",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where data sets, representations and runs are kept (or RELA_WORKSPACE).",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
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
    end_with_launcher()
    if ctx.invoked_subcommand == doctor.name:
        return  # it works where what the others import does not
    from rela.stages.workspace.workspace import Workspace

    ctx.obj = Workspace(workspace)


@main.command()
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.option("--name", show_default="that of SRC", help="Name of the data set.")
@options_of(ConvertSettings)
@click.option(
    "--workers",
    type=click.IntRange(1),
    show_default="all cores",
    help="Processes that read and encode.",
)
@json_option
@click.pass_obj
def convert(
    workspace: Any,
    /,
    source: Path,
    name: str | None,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Convert images to an FFCV data set.

    SRC holds one folder per class, or train/ and val/ (or test/) with class folders, or just images. Or it
    is CIFAR's archive, a Hugging Face data set, WebDataset shards or a CSV of paths: see docs/data.md.
    """
    from rela.stages import convert as stage

    result = stage.convert(workspace, source, ConvertSettings(**options), name, workers, _say)
    print_result(as_json, stage.format_result, result)


@main.command()
@click.argument("dataset", required=False, shell_complete=completing.datasets)
@click.option(
    "--prior",
    "priors",
    required=True,
    multiple=True,
    shell_complete=completing.priors,
    help=f"{_NAMES_OF_PRIORS}, or an earlier run, NAME or run:NAME. Several are embedded one by one and "
    "combined.",
)
@options_of(PriorSettings)
@click.option("--split", default="train", type=click.Choice(["train", "val"]), help="Which images.")
@click.option(
    "--shard",
    metavar="I/N",
    show_default="what torchrun or a SLURM array say",
    help="Do part I of N, counted from 0.",
)
@options_of(EmbedSettings)
@json_option
@click.pass_obj
def embed(
    workspace: Any,
    /,
    dataset: str | None,
    priors: tuple[str, ...],
    split: str,
    shard: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Represent every image of DATASET by a prior, once.

    DATASET is the name of a data set, or a folder of images, which is converted first.
    """
    from rela.distributed.ranks import parse_shard
    from rela.stages.convert import dataset_or_images
    from rela.stages.embed import combine as stage

    described = PriorSettings(**{o: options.pop(o) for o in _PRIOR_OPTIONS})
    data = dataset_or_images(workspace, dataset, _say)
    settings, part = EmbedSettings(**options), parse_shard(shard)
    result = stage.embed_priors(workspace, data, priors, described, settings, split, part, _say)
    print_result(as_json, stage.format_result, result)


@main.command()
@click.argument("dataset", required=False, shell_complete=completing.datasets)
@click.option(
    "--preset",
    "preset_name",
    type=click.Choice(PRESET_NAMES),
    show_default="none",
    help="The reference's input size, batch, model and epochs for a data set; options given here "
    "go before it.",
)
@options_of(TrainSettings, complete={"prior": completing.learned_priors})
@click.option(
    "--name",
    show_default="DATASET-METHOD-NUMBER",
    shell_complete=completing.unfinished_runs,
    help="Name of the run.",
)
@click.option(
    "--embed", "embed_first", is_flag=True, help="Embed the prior first if that was not done."
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with an interrupted run as it was configured; --name chooses. It may go on elsewhere: "
    "--devices, --logger, --checkpoint-minutes and --rank-timeout can be given anew.",
)
@json_option
@click.pass_context
def train(
    ctx: click.Context,
    /,
    dataset: str | None,
    preset_name: str | None,
    name: str | None,
    embed_first: bool,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a model on DATASET: targets first, then the algorithm."""
    from rela.stages.train import train as stage
    from rela.training.settings import WHERE_TO_RUN

    given = {o: value for o, value in options.items() if _is_typed(ctx, o)}
    if resume:
        where = {o: given.pop(o) for o in WHERE_TO_RUN if o in given}
        flags = [*map(flag_name, given), *(["--preset"] if preset_name else [])]
        if flags or dataset or embed_first:
            what = ", ".join(flags) or dataset or "--embed"
            by_name = f"; a run is chosen by --name {dataset}" if dataset and not name else ""
            raise click.UsageError(
                f"--resume goes on with the run's own configuration, without {what}{by_name}"
            )
        result = stage.resume(ctx.obj, name, _say, where)
    else:
        data = ctx.obj.dataset(dataset)
        settings = TrainSettings(**{**options, **preset(preset_name), **given})
        result = stage.train(ctx.obj, data, settings, name, embed_first, _say)
    print_result(as_json, stage.format_result, result)


@main.command("eval")
@click.argument("runs", metavar="[RUN]...", nargs=-1, shell_complete=completing.runs)
@click.option("--all", "every", is_flag=True, help="Evaluate every finished run.")
@prior_option("Evaluate a prior instead of a run.", complete=completing.priors)
@click.option(
    "--dataset",
    show_default="the run's own, or the only one",
    shell_complete=completing.datasets,
    help="Which data set.",
)
@options_of(EvaluateSettings)
@options_of(PriorSettings)
@options_of(EmbedSettings, leave_out=("dtype", "crops"))
@json_option
@click.pass_obj
def evaluate(
    workspace: Any,
    /,
    runs: tuple[str, ...],
    every: bool,
    prior: str | None,
    dataset: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure RUNs or a prior: k-NN, linear probes, fine-tuning, segmentation.

    Of runs that differ in nothing but their seed, mean and standard deviation are shown too.
    """
    from rela.stages.evaluate import evaluate as stage
    from rela.stages.evaluate.table import format_report, summarize

    described = PriorSettings(**{o: options.pop(o) for o in _PRIOR_OPTIONS})
    asked = {f.name: options.pop(f.name) for f in fields(EvaluateSettings)}
    settings, embedding = EvaluateSettings(**asked), EmbedSettings(**options)
    found = stage.evaluate(
        workspace, runs, every, prior, dataset, described, settings, embedding, _say
    )
    print_result(as_json, format_report, summarize(found))


@main.command("run")
@click.argument("recipe", metavar="RECIPE.toml", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "variables",
    metavar="NAME=VALUE",
    multiple=True,
    show_default="the recipe's [variables]",
    help="Fill {NAME} in the recipe; can be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Print the jobs and what they will cost.")
@click.option(
    "--no-measure",
    is_flag=True,
    help="Estimate from what the workspace has measured alone, without trying out a few steps.",
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
    """Run the jobs and sweeps of a recipe (docs/recipes.md): what is missing, not what is there.

    A job that fails does not stop the others; the exit status is that of the first failure.
    """
    from rela.stages.recipe.jobs import load_recipe

    if no_measure and not dry_run:
        raise click.UsageError("--no-measure is for --dry-run")
    jobs = load_recipe(recipe, ctx.obj, dict(_assignment(text) for text in variables))
    if dry_run:
        from rela.stages.recipe import plan as planning

        plan = planning.plan_recipe(ctx.obj, jobs, not no_measure, _say)
        print_result(as_json, planning.format_plan, plan)
        return
    from rela.stages.recipe import run as stage

    result = stage.run_recipe(ctx.obj, jobs, _say)
    print_result(as_json, stage.format_result, result)
    if result.exit_status:
        _say(f"rela: {stage.describe_failures(result)}")
        ctx.exit(result.exit_status)


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise click.UsageError(
            f"--set {text}: expected NAME=VALUE, such as --set data=path/to/data"
        )
    return name, value


@main.command()
@click.option(
    "--output",
    default="rela-demo",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where images, workspace and plot go.",
)
@click.option("--seeds", default=3, type=click.IntRange(1), help="Runs of each kind.")
@json_option
def demo(output: Path, seeds: int, as_json: bool) -> None:
    """Show the whole method on scikit-learn's handwritten digits, in a few minutes."""
    from rela.stages import demo as stage

    print_result(as_json, stage.format_result, stage.demo(output, seeds, _say))


def _is_typed(ctx: click.Context, option: str) -> bool:
    return ctx.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE


for command in (cache, completing.completion, doctor, export, neighbors, priors, report, status):
    main.add_command(command)


if __name__ == "__main__":
    sys.exit(main())
