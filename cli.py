"""The command line: parse, call a stage, print. Nothing heavy is imported until a command runs."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])
_CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}
_INTERRUPTED = 130


def _say(message: str) -> None:
    click.echo(message, err=True)


class _Commands(click.Group):
    """Turns the exceptions of stages into one line on stderr and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        from pipeline.errors import PipelineError
        from rela.errors import RelaError

        try:
            return super().invoke(ctx)
        except (RelaError, PipelineError) as error:
            if ctx.params.get("debug"):
                raise
            _say(f"rela: {error}")
            ctx.exit(error.exit_status)
        except KeyboardInterrupt:
            _say("rela: interrupted; the same command goes on from what is finished")
            ctx.exit(_INTERRUPTED)
        except OSError as error:
            if ctx.params.get("debug"):
                raise
            where = f" ({error.filename})" if error.filename else ""
            _say(f"rela: {error.strerror or error}{where}; --debug shows where this came from")
            ctx.exit(74)


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
    from stages.workspace import Workspace

    ctx.obj = Workspace(workspace)


def _json_option(function: _F) -> _F:
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(
        function
    )


@main.command()
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the data set.  [default: the folder's name]")
@click.option(
    "--val-fraction",
    default=0.0,
    type=click.FloatRange(0, 0.9),
    help="Share of each class cut off as validation split, if SRC brings none.",
)
@click.option(
    "--write-mode",
    default="auto",
    type=click.Choice(["auto", "raw", "jpg", "proportion"]),
    help="How images are stored; auto: raw up to 128×128 pixels, JPEG above.",
)
@click.option(
    "--jpeg-quality",
    default=90,
    type=click.IntRange(1, 100),
    help="For images that have to be encoded; plain JPEGs are stored as they are.",
)
@click.option(
    "--jpeg-share",
    default=0.5,
    type=click.FloatRange(0, 1),
    help="Share of JPEGs in mode proportion.",
)
@click.option(
    "--max-side",
    type=click.IntRange(1),
    help="Shrink larger images to this longer side, in pixels.",
)
@click.option(
    "--alpha-on-white",
    is_flag=True,
    help="Composite transparent images on white instead of dropping alpha.",
)
@click.option(
    "--on-bad-image",
    default="stop",
    type=click.Choice(["stop", "skip"]),
    help="List bad images and stop, or leave them out.",
)
@click.option("--seed", default=0, help="Decides the validation split and the JPEG share.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes that read and encode.  [default: all cores]",
)
@_json_option
@click.pass_obj
def convert(
    workspace: Any,
    source: Path,
    name: str | None,
    val_fraction: float,
    write_mode: Any,
    jpeg_quality: int,
    jpeg_share: float,
    max_side: int | None,
    alpha_on_white: bool,
    on_bad_image: Any,
    seed: int,
    workers: int | None,
    as_json: bool,
) -> None:
    """Convert class folders of images to an FFCV data set.

    SRC holds one folder per class, or train/ and val/ (or test/) with class folders, or just images.
    """
    from rela.encoding import Encoding
    from stages import convert as stage
    from stages.tables import human_bytes

    encoding = Encoding(write_mode, jpeg_quality, max_side, jpeg_share, alpha_on_white)
    settings = stage.ConvertSettings(encoding, val_fraction, seed, on_bad_image)
    result = stage.convert(workspace, source, settings, name, workers, _say)
    artifact = result.artifact
    content = artifact.manifest.content
    if as_json:
        click.echo(
            json.dumps(
                {
                    "name": artifact.name,
                    "path": str(artifact.path),
                    "cached": result.cached,
                    "fingerprint": artifact.fingerprint,
                    "seconds": result.seconds,
                    **content,
                }
            )
        )
        return
    for split, c in content["splits"].items():
        size = human_bytes((artifact.path / f"{split}.beton").stat().st_size)
        click.echo(
            f"{split}: {c['num_images']:,} images ({c['num_raw']:,} raw, {c['num_jpeg']:,} JPEG), {size}"
        )
    classes = f"{len(content['class_names'])} classes" if content["labelled"] else "no labels"
    if result.cached:
        click.echo(
            f"data set {artifact.name} ({classes}) is there already, unchanged: {artifact.path}"
        )
    else:
        total = sum(c["num_images"] for c in content["splits"].values())
        click.echo(
            f"data set {artifact.name} ({classes}): {artifact.path}, {result.seconds:.1f} s, {total / result.seconds:,.0f} images/s"
        )


def _prior_options(function: _F) -> _F:
    for option in (
        click.option("--seed", default=0, help="Initial weights of a random prior."),
        click.option(
            "--image-size",
            type=click.IntRange(1),
            help="Input size of a prior that has none of its own, in pixels.  [default: the data set's, at most 224]",
        ),
        click.option(
            "--weights",
            type=click.Path(path_type=Path),
            help="Local weights for the architecture --prior: a state dict or .safetensors.",
        ),
    ):
        function = option(function)
    return function


def _compute_options(function: _F) -> _F:
    for option in (
        click.option(
            "--threads", type=click.IntRange(1), help="Loading threads.  [default: all cores]"
        ),
        click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N."),
        click.option(
            "--batch-size", default=128, type=click.IntRange(1), help="Images per forward pass."
        ),
    ):
        function = option(function)
    return function


@main.command()
@click.argument("dataset", required=False)
@click.option(
    "--prior",
    required=True,
    help="A torchvision model (resnet18), random:ARCH, or an earlier run by name.",
)
@_prior_options
@click.option("--split", default="train", type=click.Choice(["train", "val"]), help="Which images.")
@click.option(
    "--dtype",
    default="float16",
    type=click.Choice(["float16", "float32"]),
    help="Of the stored representations.",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Do part I of N, counted from 0.  [default: from torchrun or a SLURM array]",
)
@_compute_options
@_json_option
@click.pass_obj
def embed(
    workspace: Any,
    dataset: str | None,
    prior: str,
    weights: Path | None,
    image_size: int | None,
    seed: int,
    split: str,
    dtype: str,
    shard: str | None,
    batch_size: int,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Represent every image of DATASET by a prior, once."""
    from stages import embed as stage

    data = workspace.dataset(dataset)
    request = stage.prior_request(data, prior, weights, seed, image_size)
    index, count = stage.parse_shard(shard)
    settings = stage.EmbedSettings(dtype, batch_size, device, threads, index, count)
    result = stage.embed(workspace, data, request, settings, split, _say)
    artifact = result.artifact
    if as_json:
        click.echo(
            json.dumps(
                {
                    "path": str(artifact.path) if artifact else None,
                    "cached": result.cached,
                    "num_embedded": result.num_embedded,
                    "seconds": result.seconds,
                    "manifest": asdict(artifact.manifest) if artifact else None,
                }
            )
        )
    elif artifact is None:
        click.echo(
            f"shard {index} of {count} is done ({result.num_embedded:,} images); other shards still work"
        )
    else:
        rows, width = artifact.manifest.content["shape"]
        what = f"{rows:,} × {width} representations of data set {data.name} ({split})"
        if result.cached:
            click.echo(f"{what} are there already: {artifact.path}")
        else:
            rate = result.num_embedded / max(result.seconds, 1e-9)
            click.echo(f"{what}: {artifact.path}, {result.seconds:.1f} s, {rate:,.0f} images/s")


@main.command()
@click.argument("dataset", required=False)
@click.option(
    "--prior", help="Name of an embedded prior, none, or random.  [default: the one embedded prior]"
)
@click.option("--method", default="byol", help="The algorithm of stage 2.")
@click.option(
    "--model",
    help="A torchvision classification model; NAME_small has the stem for small images.  [default: resnet18, or resnet18_small up to 64 pixels]",
)
@click.option(
    "--image-size",
    type=click.IntRange(1),
    help="Size of the views in pixels.  [default: the data set's, at most 224]",
)
@click.option(
    "--handover",
    type=click.FloatRange(0, 1),
    help="Fraction of all steps given to stage 1.  [default: the adaptive rule]",
)
@click.option(
    "--head",
    default="learned",
    type=click.Choice(["learned", "fixed"]),
    help="Stage 1's linear layer: trained, or random as in the reference.",
)
@click.option(
    "--data-ratio",
    default=1.0,
    type=float,
    help="Share of the images that each epoch draws afresh.",
)
@click.option("--epochs", default=100, type=click.IntRange(1), help="Passes over the drawn images.")
@click.option(
    "--batch-size",
    default=128,
    type=click.IntRange(2),
    help="Images per optimizer step, over all devices.",
)
@click.option(
    "--accumulate",
    default=1,
    type=click.IntRange(1),
    help="Micro-batches that a batch is split into.",
)
@click.option(
    "--lr",
    default=1e-3,
    type=click.FloatRange(0, min_open=True),
    help="AdamW's learning rate, constant.",
)
@click.option(
    "--weight-decay", default=0.01, type=click.FloatRange(0), help="AdamW's weight decay."
)
@click.option("--seed", default=0, type=click.IntRange(0), help="Initial weights, order and views.")
@click.option(
    "--precision",
    default="auto",
    type=click.Choice(["auto", "32-true", "16-mixed", "bf16-mixed"]),
    help="auto: 16-mixed on a GPU, 32-true on the CPU.",
)
@click.option("--devices", default="auto", help="How many GPUs, or which: 2, or 0,3.")
@click.option("--name", help="Name of the run.  [default: DATASET-METHOD-NUMBER]")
@click.option(
    "--embed", "embed_first", is_flag=True, help="Embed the prior first if that has not been done."
)
@click.option(
    "--resume",
    "resume_run",
    is_flag=True,
    help="Go on with an interrupted run as it was configured (--name chooses).",
)
@_json_option
@click.pass_context
def train(
    ctx: click.Context,
    /,
    dataset: str | None,
    name: str | None,
    embed_first: bool,
    resume_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a model on DATASET: targets first, then the algorithm."""
    from stages import train as stage

    workspace = ctx.obj
    if resume_run:
        given = [
            p
            for p in options
            if ctx.get_parameter_source(p) is click.core.ParameterSource.COMMANDLINE
        ]
        if given or dataset:
            raise click.UsageError(
                "--resume takes the run's own configuration; only --name goes with it"
            )
        result = stage.resume(workspace, name, _say)
    else:
        data = workspace.dataset(dataset)
        result = stage.train(
            workspace, data, stage.TrainSettings(**options), name, embed_first, _say
        )
    run = result.artifact
    if as_json:
        click.echo(
            json.dumps(
                {
                    "name": run.name,
                    "path": str(run.path),
                    "cached": result.cached,
                    "manifest": asdict(run.manifest),
                }
            )
        )
        return
    if result.cached:
        click.echo(f"run {run.name} with these settings is finished already: {run.path}")
        return
    click.echo(f"run {run.name} is finished: {run.path}")
    click.echo(stage.loading_snippet(run))


@main.command("eval")
@click.argument("run", required=False)
@click.option("--prior", help="Evaluate a prior instead of a run.")
@click.option("--dataset", help="Which data set.  [default: the run's own, or the only one]")
@_prior_options
@_compute_options
@_json_option
@click.pass_obj
def evaluate(
    workspace: Any,
    run: str | None,
    prior: str | None,
    dataset: str | None,
    weights: Path | None,
    image_size: int | None,
    seed: int,
    batch_size: int,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure the frozen features of a RUN or a prior: k-NN and linear probes."""
    from stages import embed as embed_stage
    from stages import evaluate as stage
    from stages.tables import format_table

    settings = embed_stage.EmbedSettings(batch_size=batch_size, device=device, num_threads=threads)
    if prior is not None:
        if run is not None:
            raise click.UsageError("name a run or --prior, not both")
        data = workspace.dataset(dataset)
        request = embed_stage.prior_request(data, prior, weights, seed, image_size)
        result = stage.evaluate_prior(workspace, data, request, settings=settings, say=_say)
    else:
        result = stage.evaluate_run(
            workspace, workspace.run(run), dataset, settings=settings, say=_say
        )
    if as_json:
        click.echo(
            json.dumps({"path": str(result.path), "cached": result.cached, **result.results})
        )
        return
    click.echo(f"{result.results['evaluated']} on data set {result.results['dataset']}")
    click.echo(format_table(["protocol", "top-1 %", "top-5 %", "how"], stage.table_rows(result)))
    click.echo(f"written to {result.path}")


@main.command()
@_json_option
@click.pass_obj
def status(workspace: Any, as_json: bool) -> None:
    """Show data sets, representations, runs, and what can be resumed."""
    from stages import status as stage

    found = stage.status(workspace)
    if as_json:
        click.echo(json.dumps(asdict(found)))
    elif found.empty:
        click.echo(f"nothing in {workspace.root} yet; begin with `rela convert path/to/images`")
    else:
        click.echo(stage.format_status(found))


@main.command()
@click.option(
    "--output",
    default="rela-demo",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where images, workspace and plot go.",
)
@click.option("--seeds", default=3, type=click.IntRange(1), help="Runs of each kind.")
@_json_option
def demo(output: Path, seeds: int, as_json: bool) -> None:
    """Show the whole method on scikit-learn's handwritten digits, in a few minutes."""
    from stages import demo as stage

    result = stage.demo(output, seeds, _say)
    if as_json:
        click.echo(json.dumps(asdict(result), default=str))
    else:
        click.echo(stage.format_result(result))


if __name__ == "__main__":
    sys.exit(main())
