"""What `import rela` offers: the commands of the command line as functions, and cached features.

Every function works in a workspace: `workspace`, or RELA_WORKSPACE, or ./workspace. Names and
defaults are those of the command line. What a person should know on the way goes to `say`, and without
it to the logger `rela`. Failures are `rela.errors.RelaError` and `rela.pipeline.errors.PipelineError`.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rela.distributed.ranks import parse_shard
from rela.options import settings_of, takes
from rela.stages import convert as _convert
from rela.stages import export as _export
from rela.stages import neighbors as _neighbors
from rela.stages.convert import ConvertResult, dataset_or_images
from rela.stages.embed import combine as _combine
from rela.stages.embed.combine import CombineResult
from rela.stages.embed.embed import EmbedResult
from rela.stages.evaluate import evaluate as _evaluate
from rela.stages.evaluate.evaluate import Evaluation
from rela.stages.export import ExportResult
from rela.stages.neighbors import Neighbors
from rela.stages.priors.find import open_representations as _open_representations
from rela.stages.report import report as _report
from rela.stages.report.report import ReportResult
from rela.stages.settings import (
    ConvertSettings,
    EmbedSettings,
    EvaluateSettings,
    ExportSettings,
    NeighborsSettings,
    PriorSettings,
    ReportSettings,
)
from rela.stages.settings import preset as preset
from rela.stages.train import train as _train
from rela.stages.train.fit import TrainResult
from rela.stages.workspace import status as _status
from rela.stages.workspace.status import Status
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

if TYPE_CHECKING:
    from rela.representations.named import NamedRepresentations

Say = Callable[[str], None]
_log = logging.getLogger("rela")


@dataclass(frozen=True, kw_only=True)
class _InWorkspace:
    workspace: str | Path | None = None
    say: Say = _log.info

    @property
    def place(self) -> Workspace:
        return _workspace(self.workspace)


def _workspace(given: str | Path | None) -> Workspace:
    return Workspace(Path(given or os.environ.get("RELA_WORKSPACE") or "./workspace"))


@dataclass(frozen=True)
class _Convert(ConvertSettings, _InWorkspace):
    source: str | Path
    name: str | None = field(default=None, kw_only=True)
    workers: int | None = field(default=None, kw_only=True)


@takes(_Convert)
def convert(given: _Convert) -> ConvertResult:
    """Convert class folders of images to an FFCV data set, or find that it was done before.

    >>> result = rela.convert("images")
    >>> result.artifact.name, result.cached
    ('images', True)
    >>> result.artifact.manifest.content["class_names"]
    ['ant', 'bee', 'cat']
    """
    settings = settings_of(given, ConvertSettings)
    return _convert.convert(
        given.place, Path(given.source), settings, given.name, given.workers, given.say
    )


@dataclass(frozen=True)
class _Embed(EmbedSettings, PriorSettings, _InWorkspace):
    dataset: str | Path | None = None
    prior: str | Sequence[str] = field(kw_only=True)
    split: str = field(default="train", kw_only=True)
    shard: str | None = field(default=None, kw_only=True)


@takes(_Embed)
def embed(given: _Embed) -> EmbedResult | CombineResult:
    """Represent every image of a data set, or of a folder of images, by a prior, once.

    `prior` is what `--prior` takes, one or several, which are combined.

    >>> result = rela.embed(prior="random:shufflenet_v2_x0_5", image_size=32)
    >>> result.artifact.manifest.content["shape"]
    [24, 1024]
    >>> rela.embed("images", prior="random:shufflenet_v2_x0_5", image_size=32).cached
    True
    """
    priors = [given.prior] if isinstance(given.prior, str) else list(given.prior)
    return _combine.embed_priors(
        given.place,
        dataset_or_images(given.place, given.dataset, given.say),
        priors,
        settings_of(given, PriorSettings),
        settings_of(given, EmbedSettings),
        given.split,
        parse_shard(given.shard),
        given.say,
    )


@dataclass(frozen=True)
class _Train(TrainSettings, _InWorkspace):
    dataset: str | None = None
    name: str | None = field(default=None, kw_only=True)
    embed: bool = field(default=False, kw_only=True)


@takes(_Train)
def train(given: _Train) -> TrainResult:
    """Train a model: targets first, then the algorithm. An interrupted run with these settings goes on.

    `embed`: embed the prior first if that was not done. With the reference's settings for a data set:
    `rela.train(**rela.preset("cifar10") | {"epochs": 5})`.

    >>> result = rela.train(
    ...     model="shufflenet_v2_x0_5", image_size=32, batch_size=8, epochs=1, handover=0.5,
    ...     prior="random:shufflenet_v2_x0_5-seed0", name="first",
    ... )
    >>> sorted(path.name for path in result.artifact.path.glob("*.safetensors"))
    ['backbone.safetensors']
    """
    settings = settings_of(given, TrainSettings)
    data = given.place.dataset(given.dataset)
    return _train.train(given.place, data, settings, given.name, given.embed, given.say)


@dataclass(frozen=True)
class _Evaluate(EvaluateSettings, EmbedSettings, PriorSettings, _InWorkspace):
    dtype: str = field(default=EmbedSettings.dtype, init=False)
    crops: int = field(default=EmbedSettings.crops, init=False)
    runs: str | Sequence[str] = ()
    all: bool = field(default=False, kw_only=True)
    prior: str | None = field(default=None, kw_only=True)
    dataset: str | None = field(default=None, kw_only=True)


@takes(_Evaluate)
def evaluate(given: _Evaluate) -> list[Evaluation]:
    """Measure runs (the only one, those named, or `all`) or a prior: k-NN, probes, fine-tuning.

    >>> [evaluation] = rela.evaluate(protocol=("knn20",))
    >>> evaluation.run, sorted(evaluation.results["accuracies"]["knn20"])
    ('first', ['k', 'seconds', 'top1'])
    """
    return _evaluate.evaluate(
        given.place,
        [given.runs] if isinstance(given.runs, str) else given.runs,
        given.all,
        given.prior,
        given.dataset,
        settings_of(given, PriorSettings),
        settings_of(given, EvaluateSettings),
        settings_of(given, EmbedSettings),
        given.say,
    )


@dataclass(frozen=True)
class _Export(ExportSettings, EmbedSettings, _InWorkspace):
    crops: int = field(default=EmbedSettings.crops, init=False)
    run: str | None = None


@takes(_Export)
def export(given: _Export) -> ExportResult:
    """Write the backbone of a run, or its features of a data set, for other programs.

    The result's `snippet` is the Python that loads the file.

    >>> print(rela.export(to="torchvision", output="weights.pth", force=True).path)
    weights.pth
    """
    return _export.export(
        given.place,
        given.place.run(given.run),
        settings_of(given, ExportSettings),
        settings_of(given, EmbedSettings),
        given.say,
    )


@dataclass(frozen=True)
class _Neighbors(NeighborsSettings, PriorSettings, _InWorkspace):
    image: str | Path
    device: str = field(default="auto", kw_only=True)


@takes(_Neighbors)
def neighbors(given: _Neighbors) -> Neighbors:
    """Find the images of a data set that are most like an image file, by cached representations.

    >>> found = rela.neighbors("images/train/bee/03.png", count=2)
    >>> found.neighbors[0].path, found.neighbors[0].class_name, len(found.neighbors)
    ('train/bee/03.png', 'bee', 2)
    """
    return _neighbors.neighbors(
        given.place,
        Path(given.image),
        settings_of(given, NeighborsSettings),
        settings_of(given, PriorSettings),
        given.device,
        given.say,
    )


@dataclass(frozen=True)
class _Report(ReportSettings, _InWorkspace):
    runs: str | Sequence[str] = ()
    output: str | Path = field(default="rela-report", kw_only=True)


@takes(_Report)
def report(given: _Report) -> ReportResult:
    """Write one page about finished runs, all or those named: was the prior worth it?

    >>> print(rela.report("first", output="page", maps=0).page)
    page/report.html
    """
    return _report.report(
        given.place,
        [given.runs] if isinstance(given.runs, str) else given.runs,
        Path(given.output),
        settings_of(given, ReportSettings),
        given.say,
    )


def status(workspace: str | Path | None = None) -> Status:
    """What the workspace holds: data sets, representations, runs, and what can be gone on with.

    >>> [row["name"] for row in rela.status().runs]
    ['first']
    """
    return _status.status(_workspace(workspace))


def open_representations(
    representations: str | Path | None = None,
    *,
    dataset: str | None = None,
    split: str | None = None,
    workspace: str | Path | None = None,
    verify: bool = True,
) -> "NamedRepresentations":
    """Cached representations with the names of their images, a mapping from path to vector.

    `representations` is a prior's name, or a folder that `rela embed` made; it may be left out if there
    is only one. `split` is train unless a folder says otherwise. With `verify` every byte is compared
    with its digest first; the file is memory-mapped all the same.

    >>> features = rela.open_representations()
    >>> features
    <24 × 1024 representations of 24 images by random:shufflenet_v2_x0_5-seed0>
    >>> features["train/bee/03.png"].shape, str(features.array.dtype)
    ((1024,), 'float16')
    >>> features.class_names[features.labels[features.paths.index("train/bee/03.png")]]
    'bee'
    >>> vector, label = features.torch_dataset()[11]
    >>> vector.dtype, label
    (torch.float32, 1)
    """
    place = _workspace(workspace)
    return _open_representations(place, representations, dataset, split, verify)
