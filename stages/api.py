"""What `import rela` offers: the commands of the command line as functions, and cached features.

Every function works in a workspace: `workspace`, else RELA_WORKSPACE, else ./workspace. Names and
defaults are those of the command line. Progress messages go to `say`: by default the logger `rela`, and in a
notebook its output. Results have a short `repr` and a table in notebooks. Functions raise
`rela.errors.RelaError` and `rela.pipeline.errors.PipelineError`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rela.models.own_code.networks import register as register
from rela.options import checked_function, keyword_function
from rela.pipeline import Say
from rela.stages import backbone as _backbone
from rela.stages import convert as _convert
from rela.stages import remove as _remove
from rela.stages import requests
from rela.stages.backbone import Backbone
from rela.stages.convert import ConvertResult
from rela.stages.embed import combine as _combine
from rela.stages.embed.results import CombineResult, EmbedResult, LayersResult
from rela.stages.evaluate import evaluate as _evaluate
from rela.stages.evaluate.table import Evaluations
from rela.stages.export import export as _export
from rela.stages.export.export import ExportResult
from rela.stages.neighbors import neighbors as _neighbors
from rela.stages.neighbors.duplicates import Duplicates
from rela.stages.neighbors.of_image import Neighbors
from rela.stages.neighbors.outliers import Outliers
from rela.stages.presets import preset as preset
from rela.stages.priors import list as _list
from rela.stages.priors import rank as _rank
from rela.stages.priors.find import open_representations as _open_representations
from rela.stages.priors.list import PriorList
from rela.stages.priors.rank import Ranking
from rela.stages.remove import RemoveResult
from rela.stages.report import report as _report
from rela.stages.report.report import ReportResult
from rela.stages.requests import log, workspace_at
from rela.stages.train import train as _train
from rela.stages.train.fit import TrainResult
from rela.stages.workspace import cache as _cache
from rela.stages.workspace import status as _status
from rela.stages.workspace import summary as _summary
from rela.stages.workspace.activity import UnderWay
from rela.stages.workspace.activity import under_way as _under_way
from rela.stages.workspace.cache import Listing, Removed, Verification
from rela.stages.workspace.run import Run
from rela.stages.workspace.status import Status
from rela.stages.workspace.summary import Described

if TYPE_CHECKING:  # extras, or heavy
    from rela.representations.named import NamedRepresentations
    from rela.stages.demo import DemoResult
    from rela.stages.doctor.doctor import Health
    from rela.stages.recipe.plan import Plan
    from rela.stages.recipe.run import RecipeResult


@keyword_function(requests.Convert)
def convert(request: requests.Convert) -> ConvertResult:
    """Convert class folders of images to an FFCV data set; an existing one is reused.

    >>> result = rela.convert("images")
    >>> result.artifact.name, result.cached
    ('images', True)
    >>> result.artifact.manifest.content["class_names"]
    ['ant', 'bee', 'cat']
    """
    return _convert.convert(request.place, request, request.say)


@keyword_function(requests.Embed)
def embed(request: requests.Embed) -> EmbedResult | CombineResult | LayersResult:
    """Embed every image of a data set, or of a folder of images, with a prior, once.

    `prior`: one or several values of `--prior`; several are combined. Or a `torch.nn.Module` with its `name`
    and `preprocessing`, see `rela.register`. `layer`: one; or several, which give a list `layers`.

    >>> result = rela.embed(prior="random:shufflenet_v2_x0_5", image_size=32)
    >>> result.artifact.manifest.content["shape"]
    [24, 1024]
    >>> rela.embed("images", prior="random:shufflenet_v2_x0_5", image_size=32).cached
    True
    """
    return _combine.embed_priors(request.place, request, request.say)


@keyword_function(requests.Train)
def train(request: requests.Train) -> TrainResult:
    """Train a model, or resume an interrupted run with these settings.

    `model`: a name, or a `torch.nn.Module` or a function that makes one, see `rela.register`.
    `embed`: embed the prior first if necessary. With the reference's settings for a data set:
    `rela.train(**rela.preset("cifar10") | {"epochs": 5})`.

    >>> result = rela.train(
    ...     model="shufflenet_v2_x0_5", image_size=32, batch_size=8, epochs=1, handover=0.5,
    ...     prior="random:shufflenet_v2_x0_5-seed0", name="first",
    ... )
    >>> sorted(path.name for path in result.artifact.path.glob("*.safetensors"))
    ['backbone.safetensors']
    """
    return _train.train(request.place, request, request.say)


@checked_function
def resume(
    name: str | None = None,
    *,
    epochs: int | None = None,
    devices: str | None = None,
    logger: str | None = None,
    checkpoint_minutes: float | None = None,
    rank_timeout: float | None = None,
    workspace: str | Path | None = None,
    say: Say = log,
) -> TrainResult:
    """Resume an interrupted run, the only one or `name`, with its own settings.

    With more `epochs`: extend a finished run, as a new run that begins at its last checkpoint. The other
    options say where to compute it, in place of those that it began with.

    >>> rela.resume("first").cached
    True
    """
    given = {
        "devices": devices, "logger": logger, "checkpoint_minutes": checkpoint_minutes,
        "rank_timeout": rank_timeout,
    }  # fmt: skip
    where = {option: value for option, value in given.items() if value is not None}
    return _train.resume(workspace_at(workspace), name, say, where, epochs)


@keyword_function(requests.Evaluate)
def evaluate(request: requests.Evaluate) -> Evaluations:
    """Measure runs (the only one, those named, or `all`) or a prior: k-NN, probes, fine-tuning.

    A list with one entry for each; its `summary` has means over seeds and all that `rela eval` says.

    >>> [evaluation] = rela.evaluate(protocol="knn20")
    >>> evaluation.run, sorted(evaluation.results["accuracies"]["knn20"])
    ('first', ['k', 'seconds', 'top1'])
    """
    return Evaluations(_evaluate.evaluate(request.place, request, request.say))


@keyword_function(requests.Export)
def export(request: requests.Export) -> ExportResult:
    """Write the backbone of a run, or its features of a data set, for other programs.

    The result's `snippet` is the Python that loads the file.

    >>> print(rela.export(to="torchvision", output="weights.pth", force=True).path)
    weights.pth
    """
    return _export.export(request.place, request, request.say)


@keyword_function(requests.Neighbors)
def neighbors(request: requests.Neighbors) -> Neighbors | Duplicates | Outliers:
    """Find the images of a data set most similar to an image file, by cached representations.

    With `duplicates`, its near-duplicates instead; with `outliers`, the images least like others. Both write
    a picture.

    >>> found = rela.neighbors("images/train/bee/03.png", count=2)
    >>> found.neighbors[0].path, found.neighbors[0].class_name, len(found.neighbors)
    ('train/bee/03.png', 'bee', 2)
    >>> rela.neighbors(outliers=True, count=3).num_images
    24
    """
    return _neighbors.neighbors(request.place, request, request.say)


@keyword_function(requests.Report)
def report(request: requests.Report) -> ReportResult:
    """Write one page about finished runs (default: all): was the prior worth it?

    >>> print(rela.report("first", output="page", maps=0).page)
    page/report.html
    """
    return _report.report(request.place, request, request.say)


@checked_function
def status(workspace: str | Path | None = None) -> Status:
    """Data sets, representations and runs of the workspace, running jobs, and jobs to resume.

    >>> [row["name"] for row in rela.status().runs]
    ['first']
    """
    return _status.status(workspace_at(workspace))


@checked_function
def open_representations(
    prior: str | Path | None = None,
    *,
    dataset: str | None = None,
    split: str | None = None,
    workspace: str | Path | None = None,
    verify: bool = True,
) -> "NamedRepresentations":
    """Cached representations with the names of their images, a mapping from path to vector.

    `prior`: its name, or a folder made by `rela embed`; optional if there is only one.
    `split`: that of the folder, else train. `verify`: compare the file with its digest first; the file
    is memory-mapped either way.

    >>> features = rela.open_representations()
    >>> features
    <24 × 1024 representations of 24 images by random:shufflenet_v2_x0_5-seed0@32px>
    >>> features["train/bee/03.png"].shape, str(features.array.dtype)
    ((1024,), 'float16')
    >>> features.class_names[features.labels[features.paths.index("train/bee/03.png")]]
    'bee'
    >>> vector, label = features.torch_dataset()[11]
    >>> vector.dtype, label
    (torch.float32, 1)
    """
    place = workspace_at(workspace)
    return _open_representations(place, prior, dataset, split, verify)


@checked_function
def load_backbone(
    run: "str | Path | Run | TrainResult | ExportResult | None" = None,
    *,
    workspace: str | Path | None = None,
) -> Backbone:
    """The trained network in eval mode, and the transform of its images.

    `run`: its name, or a result of `rela.train`; optional if there is only one; of an unfinished one,
    its last checkpoint. Or a .safetensors file that `rela.export` wrote, or its result, without a workspace.
    The transform takes a PIL image and returns float32 [3, S, S], as `rela.embed` sees it.

    >>> from PIL import Image
    >>> model, transform = rela.load_backbone("first")
    >>> image = transform(Image.open("images/train/bee/03.png"))
    >>> image.shape, model(image[None]).shape
    (torch.Size([3, 32, 32]), torch.Size([1, 1024]))
    """
    return _backbone.load_backbone(workspace_at(workspace), run, log)


@checked_function
def describe(dataset: str | None = None, *, workspace: str | Path | None = None) -> Described:
    """What a data set holds, as `rela convert` said at its end.

    >>> rela.describe("images").summary.num_classes
    3
    """
    return _summary.describe(workspace_at(workspace).dataset(dataset))


@checked_function
def under_way(workspace: str | Path | None = None) -> UnderWay:
    """The trainings and embeddings that run now, also those of other processes and machines.

    >>> rela.under_way()
    <UnderWay: workspace workspace, runs 0, embeddings 0>
    """
    return _under_way(workspace_at(workspace))


@checked_function
def list_priors(workspace: str | Path | None = None) -> PriorList:
    """Which priors are available here, and for which data sets each is embedded.

    >>> [row.embedded for row in rela.list_priors().priors if row.prior == "first"]
    [[]]
    """
    return _list.list_priors(workspace_at(workspace))


@keyword_function(requests.Rank)
def rank_priors(request: requests.Rank) -> Ranking:
    """Compare the embedded priors of a data set by their representations, without training.

    >>> rela.rank_priors("images").priors[0].prior
    'random:shufflenet_v2_x0_5-seed0@32px'
    """
    return _rank.rank(request.place, request)


@checked_function
def run_recipe(
    recipe: str | Path,
    variables: Mapping[str, str] | None = None,
    *,
    workspace: str | Path | None = None,
    say: Say = log,
) -> "RecipeResult":
    """Run the jobs of a recipe; finished ones are skipped.

    `recipe`: a TOML file, or the name of one that comes with rela. `variables`: values for its
    {placeholders}.

    A failed job does not stop the others and raises nothing: `jobs` has its message, `exit_status` is that
    of the first failure, else 0.

    >>> rela.run_recipe("recipe.toml", {"photos": "images"})
    <RecipeResult: jobs 1, was there 1>
    """
    from rela.stages.recipe import run as running
    from rela.stages.recipe.jobs import load_recipe

    place = workspace_at(workspace)
    return running.run_recipe(place, load_recipe(Path(recipe), place, variables or {}, say), say)


@checked_function
def plan_recipe(
    recipe: str | Path,
    variables: Mapping[str, str] | None = None,
    *,
    measure: bool = True,
    workspace: str | Path | None = None,
    say: Say = log,
) -> "Plan":
    """The jobs of a recipe and what they are expected to take; nothing is written.

    `measure`: time a few steps on random images where no speed is known yet.

    >>> [job.state for job in rela.plan_recipe("recipe.toml", {"photos": "images"}).jobs]
    ['there']
    """
    from rela.stages.recipe import plan as planning
    from rela.stages.recipe.jobs import load_recipe

    place = workspace_at(workspace)
    jobs = load_recipe(Path(recipe), place, variables or {}, say)
    return planning.plan_recipe(place, jobs, measure, say)


@keyword_function(requests.Remove)
def remove(request: requests.Remove) -> RemoveResult:
    """Remove data sets, representations, targets or runs by name: one, or several.

    Refuses what something else depends on, unless that is removed, too, or kept on purpose.

    >>> rela.remove("first", dry_run=True).removed[0].words
    'run first'
    """
    return _remove.remove(request.place, request)


@checked_function
def list_cache(workspace: str | Path | None = None) -> Listing:
    """Every artifact of the workspace with its size, largest first, and leftovers of interrupted jobs.

    >>> sorted({entry.kind for entry in rela.list_cache().entries})
    ['data set', 'representations', 'run', 'targets']
    """
    return _cache.list_cache(workspace_at(workspace))


@checked_function
def verify_cache(*names: str, workspace: str | Path | None = None) -> Verification:
    """Read every byte of the named artifacts, or of all, and compare it with the manifests.

    >>> rela.verify_cache("images", "first")
    <Verification: sound 2>
    """
    return _cache.verify(workspace_at(workspace), names)


@checked_function
def clean_cache(
    unused_days: float = 30.0, *, dry_run: bool = False, workspace: str | Path | None = None
) -> Removed:
    """Remove representations and targets that were not used for so long, and leftovers of killed jobs.

    They can be computed again. `dry_run`: only say what would be removed.

    >>> rela.clean_cache(dry_run=True)
    <Removed: would remove 0 entries, 0 B>
    """
    return _cache.collect(workspace_at(workspace), unused_days, dry_run)


@checked_function
def doctor(workspace: str | Path | None = None) -> "Health":
    """Check packages and machine; every problem has the command that fixes it."""
    from rela.stages.doctor.doctor import examine

    return examine(workspace_at(workspace).root)


@checked_function
def demo(output: str | Path = "rela-demo", seeds: int = 3, *, say: Say = log) -> "DemoResult":
    """The whole method on scikit-learn's handwritten digits, in a few minutes."""
    from rela.stages.demo import demo as run_demo

    return run_demo(Path(output), seeds, say)
