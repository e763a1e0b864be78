"""What `import rela` offers: the commands of the command line as functions, and cached features.

Every function works in a workspace: `workspace`, else RELA_WORKSPACE, else ./workspace. Names and
defaults are those of the command line. Progress messages go to `say`, by default the logger `rela`.
Functions raise `rela.errors.RelaError` and `rela.pipeline.errors.PipelineError`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rela.options import keyword_function
from rela.stages import convert as _convert
from rela.stages import export as _export
from rela.stages import neighbors as _neighbors
from rela.stages import requests
from rela.stages.convert import ConvertResult
from rela.stages.embed import combine as _combine
from rela.stages.embed.combine import CombineResult
from rela.stages.embed.embed import EmbedResult
from rela.stages.evaluate import evaluate as _evaluate
from rela.stages.evaluate.measured import Evaluation
from rela.stages.export import ExportResult
from rela.stages.neighbors import Neighbors
from rela.stages.presets import preset as preset
from rela.stages.priors.find import open_representations as _open_representations
from rela.stages.report import report as _report
from rela.stages.report.report import ReportResult
from rela.stages.requests import workspace_at
from rela.stages.train import train as _train
from rela.stages.train.fit import TrainResult
from rela.stages.workspace import status as _status
from rela.stages.workspace.status import Status

if TYPE_CHECKING:
    from rela.representations.named import NamedRepresentations


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
def embed(request: requests.Embed) -> EmbedResult | CombineResult:
    """Embed every image of a data set, or of a folder of images, with a prior, once.

    `prior`: one or several values of `--prior`; several are combined.

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


@keyword_function(requests.Evaluate)
def evaluate(request: requests.Evaluate) -> list[Evaluation]:
    """Measure runs (the only one, those named, or `all`) or a prior: k-NN, probes, fine-tuning.

    >>> [evaluation] = rela.evaluate(protocol=("knn20",))
    >>> evaluation.run, sorted(evaluation.results["accuracies"]["knn20"])
    ('first', ['k', 'seconds', 'top1'])
    """
    return _evaluate.evaluate(request.place, request, request.say)


@keyword_function(requests.Export)
def export(request: requests.Export) -> ExportResult:
    """Write the backbone of a run, or its features of a data set, for other programs.

    The result's `snippet` is the Python that loads the file.

    >>> print(rela.export(to="torchvision", output="weights.pth", force=True).path)
    weights.pth
    """
    return _export.export(request.place, request, request.say)


@keyword_function(requests.Neighbors)
def neighbors(request: requests.Neighbors) -> Neighbors:
    """Find the images of a data set most similar to an image file, by cached representations.

    >>> found = rela.neighbors("images/train/bee/03.png", count=2)
    >>> found.neighbors[0].path, found.neighbors[0].class_name, len(found.neighbors)
    ('train/bee/03.png', 'bee', 2)
    """
    return _neighbors.neighbors(request.place, request, request.say)


@keyword_function(requests.Report)
def report(request: requests.Report) -> ReportResult:
    """Write one page about finished runs (default: all): was the prior worth it?

    >>> print(rela.report("first", output="page", maps=0).page)
    page/report.html
    """
    return _report.report(request.place, request, request.say)


def status(workspace: str | Path | None = None) -> Status:
    """Data sets, representations and runs of the workspace, running jobs, and jobs to resume.

    >>> [row["name"] for row in rela.status().runs]
    ['first']
    """
    return _status.status(workspace_at(workspace))


def open_representations(
    representations: str | Path | None = None,
    *,
    dataset: str | None = None,
    split: str | None = None,
    workspace: str | Path | None = None,
    verify: bool = True,
) -> "NamedRepresentations":
    """Cached representations with the names of their images, a mapping from path to vector.

    `representations`: a prior's name or a folder made by `rela embed`; optional if there is only one.
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
    return _open_representations(place, representations, dataset, split, verify)
