"""The kinds of jobs of a recipe: the keys of their tables; find, estimate and run."""

import re
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from rela.errors import ChoiceError
from rela.options import kind_of, part_of
from rela.pipeline import Say
from rela.pipeline.artifact import Artifact
from rela.priors import PriorRequest
from rela.priors.timm import PREFIX as TIMM
from rela.priors.untrained import PREFIX as RANDOM
from rela.sources.source import ImageSource
from rela.stages import requests
from rela.stages.convert import convert, read_source
from rela.stages.dataset_of import find_dataset, find_same_names
from rela.stages.display import human_bytes
from rela.stages.embed.combine import embed_priors, find_all
from rela.stages.embed.embed import find_representations
from rela.stages.embed.maps import bytes_of_maps
from rela.stages.embed.results import LayersResult
from rela.stages.evaluate.evaluate import evaluate_run, with_priors
from rela.stages.evaluate.measured import Evaluation
from rela.stages.priors.requests import requests_of
from rela.stages.recipe.estimate import NOTHING, Estimate, Estimator, embed_key, expected_dataset
from rela.stages.recipe.file import FILE_PREFIX
from rela.stages.recipe.rates import EmbedKey
from rela.stages.settings import (
    ConvertSettings,
    DenseSettings,
    EmbedSettings,
    EvaluateSettings,
    PriorSettings,
)
from rela.stages.train.prior import NO_PRIOR, chosen_representations, training_requests
from rela.stages.train.processes import silent
from rela.stages.train.resolve import resolve_settings
from rela.stages.train.train import find_run, train
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.evaluations import EVALUATION_FILE, read_evaluation
from rela.stages.workspace.run import Run
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

Made = Artifact | Evaluation


@dataclass
class Outlook:
    """A recipe while it is planned.

    - `there`: existing results, by the job's number;
    - `converted`: the data sets that exist or will be made;
    - `known`: those to be made whose contents another data set has;
    - `trained`: settings of the named runs of the recipe;
    - `seen`: work of earlier jobs, which is counted once.
    """

    workspace: Workspace
    jobs: list["Job"]
    estimator: Estimator
    there: dict[int, Any] = field(default_factory=dict)
    converted: dict[str, DataSet] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    trained: dict[str, TrainSettings] = field(default_factory=dict)
    seen: set[Any] = field(default_factory=set)

    def dataset(self, name: str) -> DataSet:
        """The data set of the recipe or of the workspace."""
        return self.converted.get(name) or self.workspace.dataset(name)

    def trained_on(self, run: Run) -> str:
        """The name of the data set of a finished run: its own, or one of the same images."""
        name = run.content.dataset
        if name in self.converted:
            return name
        return self.workspace.dataset_of(name, run.dataset_fingerprint).name

    def is_new(self, *key: Any) -> bool:
        """Whether no earlier job does this work; remembers that one does now."""
        new = key not in self.seen
        self.seen.add(key)
        return new


@dataclass(frozen=True)
class Job:
    """One call of a stage.

    - `what`: the data set, and what distinguishes the job in its table;
    - `needs`: the earlier jobs, by number from 0, whose results this one reads.
    """

    stage: ClassVar[str]
    REQUEST: ClassVar[type[requests.Request]]
    SETTINGS: ClassVar[type]
    NOT_HERE: ClassVar[Collection[str]] = ()  # fields of the request that a table may not hold
    ONLY_HERE: ClassVar[Mapping[str, type]] = MappingProxyType({})  # keys that the request lacks

    where: str
    what: str
    request: Any
    needs: tuple[int, ...] = ()

    @classmethod
    def keys(cls) -> dict[str, type]:
        """The keys of a table with their types: the fields of its request."""
        described = (f for f in fields(cls.REQUEST) if f.init and f.metadata)
        kinds = {f.name: kind_of(f) for f in described if f.name not in cls.NOT_HERE}
        return {**kinds, **cls.ONLY_HERE}

    @classmethod
    def required(cls) -> list[str]:
        """The keys that a table must hold."""
        return [f.name for f in fields(cls.REQUEST) if f.default is MISSING]

    @cached_property
    def settings(self) -> Any:
        """The part of the request that decides the result."""
        return part_of(self.request, self.SETTINGS)

    def find(self, outlook: Outlook) -> object | None:
        """The result, if it is in the workspace. Raises ChoiceError if the job cannot run."""
        raise NotImplementedError

    def estimate(self, outlook: Outlook) -> Estimate:
        """The cost of running, after `find` found nothing; NOTHING if an earlier job does all the work."""
        raise NotImplementedError

    def run(self, workspace: Workspace, made: dict[int, Any], say: Say) -> tuple[Made, bool]:
        """The result, and whether it existed; `made` holds the results of the jobs it needs."""
        raise NotImplementedError

    def embeds(self, prior: str, dataset: str) -> bool:
        """Whether the job embeds this data set with the prior that trainings call `prior`."""
        return False

    def _can_look(self, outlook: Outlook) -> bool:
        """Whether the results of all jobs it needs exist, or their contents are known."""
        converted = {i for i in self.needs if outlook.jobs[i].stage == ConvertJob.stage}
        known = {i for i in converted if outlook.jobs[i].request.name in outlook.known}
        return all(i in outlook.there or i in known for i in self.needs)


class ConvertJob(Job):
    """A data set to convert."""

    stage, REQUEST, SETTINGS = "convert", requests.Convert, ConvertSettings

    @cached_property
    def images(self) -> ImageSource:
        """The images to convert."""
        return read_source(Path(self.request.source), self.settings, compare=False)

    def find(self, outlook: Outlook) -> DataSet | None:
        """The data set, if it exists."""
        name = self.request.name
        found = find_dataset(outlook.workspace, self.images, self.settings, name)
        outlook.converted[name] = found or self._expected(outlook, name)
        return found

    def _expected(self, outlook: Outlook, name: str) -> DataSet:
        """What will be made; its contents are known if the same files were converted under another name."""
        alike = find_same_names(outlook.workspace, self.images, self.settings)
        if alike is None:
            return expected_dataset(outlook.workspace, self.images, name)
        outlook.known.add(name)
        return DataSet(outlook.workspace.datasets_dir / name, alike.manifest)

    def estimate(self, outlook: Outlook) -> Estimate:
        """Reading, checking and encoding every image."""
        return outlook.estimator.convert(self.images, self.settings)

    def run(self, workspace: Workspace, made: dict[int, Any], say: Say) -> tuple[Made, bool]:
        """Convert."""
        result = convert(workspace, self.request, say)
        return result.artifact, result.cached


class EmbedJob(Job):
    """A data set to embed with a prior, or with several."""

    stage, REQUEST, SETTINGS = "embed", requests.Embed, EmbedSettings
    NOT_HERE = ("shard",)

    def find(self, outlook: Outlook) -> Artifact | None:
        """The representations, if all exist."""
        dataset, split = outlook.dataset(self.request.dataset), self.request.split
        if split not in dataset.splits:
            raise ChoiceError(f"data set {dataset.name} has no {split} split")
        layers = self._layers(outlook.workspace, dataset)
        if not self._can_look(outlook):
            return None
        found = [
            find_all(outlook.workspace, dataset, priors, self.settings, split) for priors in layers
        ]
        dense = part_of(self.request, DenseSettings)
        if dense.dense:
            look = partial(find_representations, outlook.workspace, dataset)
            found += [look(r, self.settings, split, dense) for (r,) in layers]
        return None if None in found else found[0]

    def estimate(self, outlook: Outlook) -> Estimate:
        """The forward passes of each prior."""
        dataset = outlook.dataset(self.request.dataset)
        priors = self._layers(outlook.workspace, dataset)[0]  # the others cost no forward pass
        split, dense = self.request.split, part_of(self.request, DenseSettings)
        cost = _embedding(outlook, dataset, priors, self.settings, split)
        if not dense.dense:
            return cost
        num_rows = dataset.num_images(split) * (self.settings.crops or 1)
        size = len(self.request.by_layer) * bytes_of_maps(num_rows, dense)
        return cost + Estimate(0.0, f"{human_bytes(size)} of maps")  # of the same passes

    def run(self, workspace: Workspace, made: dict[int, Any], say: Say) -> tuple[Made, bool]:
        """Embed."""
        result = embed_priors(workspace, replace(self.request, shard="0/1"), say)
        first = result.layers[0] if isinstance(result, LayersResult) else result
        assert first.artifact is not None, "a job is never sharded"
        return first.artifact, result.cached

    def embeds(self, prior: str, dataset: str) -> bool:
        """Whether `prior` is its prior as named in the table, with or without its weights."""
        request = self.request
        if (request.dataset, request.split) != (dataset, "train"):
            return False
        name = str(request.prior)
        file = Path(name.removeprefix(FILE_PREFIX))
        names = [name, file.name]  # a file by its name
        if name.startswith(FILE_PREFIX):
            names.append(file.stem)  # as earlier versions called it
        if request.weights is not None:
            names.append(f"{name}@{Path(request.weights).name}")
        return prior in names

    def _layers(self, workspace: Workspace, dataset: DataSet) -> list[list[PriorRequest]]:
        """The prior, or several to combine, with the options of the table, at each layer."""
        return [
            [r for n in self.request.priors for r in requests_of(workspace, dataset, n, described)]
            for described in self.request.by_layer
        ]


class TrainJob(Job):
    """A model to train."""

    stage, REQUEST, SETTINGS = "train", requests.Train, TrainSettings
    NOT_HERE, ONLY_HERE = ("embed",), MappingProxyType({"preset": str})

    def resolved(self, outlook: Outlook) -> TrainSettings:
        """The settings resolved for its data set."""
        return resolve_settings(outlook.dataset(self.request.dataset), self.settings)

    def find(self, outlook: Outlook) -> Artifact | None:
        """The run, if it is finished."""
        resolved, name = self.resolved(outlook), self.request.name
        if name is not None:
            outlook.trained[name] = resolved
        if not self._can_look(outlook):
            return None
        dataset = outlook.dataset(self.request.dataset)
        return find_run(outlook.workspace, dataset, self.settings, name)

    def estimate(self, outlook: Outlook) -> Estimate:
        """Both stages, and embedding the prior if necessary."""
        dataset, resolved = outlook.dataset(self.request.dataset), self.resolved(outlook)
        if not outlook.is_new("train", dataset.name, resolved) and self.request.name is None:
            return NOTHING
        embedding = NOTHING
        needs = [outlook.jobs[i] for i in self.needs]
        made_above = any(job.embeds(str(resolved.prior), dataset.name) for job in needs)
        without = resolved.prior in (None, NO_PRIOR) or made_above
        if not without and not self._is_embedded(outlook, dataset, resolved):
            priors = training_requests(outlook.workspace, dataset, resolved)
            how = EmbedSettings(crops=resolved.crops or 0)
            embedding = _embedding(outlook, dataset, priors, how, "train")
        return embedding + outlook.estimator.train(dataset, self.settings)

    def run(self, workspace: Workspace, made: dict[int, Any], say: Say) -> tuple[Made, bool]:
        """Train; embed the prior first if necessary."""
        result = train(workspace, replace(self.request, embed=True), say)
        return result.artifact, result.cached

    def _is_embedded(self, outlook: Outlook, dataset: DataSet, settings: TrainSettings) -> bool:
        if not self._can_look(outlook):
            return False
        try:
            chosen_representations(
                outlook.workspace, dataset, settings, False, silent, may_build=False
            )
        except ChoiceError:
            return False
        return True


@dataclass(frozen=True)
class EvalJob(Job):
    """A run to evaluate; `trained_by`: the job that trains it, None for a run by name."""

    stage, REQUEST, SETTINGS = "eval", requests.Evaluate, EvaluateSettings
    NOT_HERE = ("runs", "all", "prior", "verbose", *vars(PriorSettings()))
    ONLY_HERE = MappingProxyType({"run": str})
    trained_by: int | None = None

    def find(self, outlook: Outlook) -> object | None:
        """The measures, if those of every protocol exist. The data set must have a val split."""
        run = self._run_of(outlook)
        trained_on = (
            self._training(outlook).request.dataset if run is None else outlook.trained_on(run)
        )
        on = self.request.dataset or trained_on
        if "val" not in outlook.dataset(on).splits:
            raise ChoiceError(
                f"data set {on} has no val split; convert it under another name with val_fraction = 0.1, "
                "or from a folder with train/ and val/"
            )
        if run is None:
            return None
        name = EVALUATION_FILE if on == trained_on else f"eval-{on}.json"
        found = read_evaluation(run.path / name).accuracies
        # missing protocols or seeds are found when the stage runs
        return found if all(protocol in found for protocol in self.settings.protocol) else None

    def estimate(self, outlook: Outlook) -> Estimate:
        """Features of the data set, and the probes."""
        run = self._run_of(outlook)
        if run is not None:
            trained_on, model = outlook.trained_on(run), (run.model, run.image_size)
        else:
            training = self._training(outlook)
            trained_on, resolved = training.request.dataset, training.resolved(outlook)
            model = str(resolved.model), int(resolved.image_size or 0)
            on = self.request.dataset or trained_on
            if not outlook.is_new("eval", trained_on, resolved, on) and not training.request.name:
                return NOTHING
        dataset = outlook.dataset(self.request.dataset or trained_on)
        return outlook.estimator.evaluate(dataset, model, self.settings)

    def run(self, workspace: Workspace, made: dict[int, Any], say: Say) -> tuple[Made, bool]:
        """Evaluate the run."""
        name = self.request.names[0] if self.trained_by is None else made[self.trained_by].name
        run, embedding = workspace.run(name), part_of(self.request, EmbedSettings)
        found = evaluate_run(workspace, run, self.request.dataset, self.settings, embedding, say)
        (result,) = with_priors(workspace, [found], self.settings, embedding, say)
        return result, result.cached

    def _run_of(self, outlook: Outlook) -> Any:
        """The run, finished; None if it is still to be trained."""
        if self.trained_by is None:
            return outlook.workspace.run(self.request.names[0])
        return outlook.there.get(self.trained_by)

    def _training(self, outlook: Outlook) -> Any:
        return outlook.jobs[self.trained_by or 0]


KINDS: dict[str, type[Job]] = {k.stage: k for k in (ConvertJob, EmbedJob, TrainJob, EvalJob)}


def _embedding(
    outlook: Outlook,
    dataset: DataSet,
    priors: list[PriorRequest],
    settings: EmbedSettings,
    split: str,
) -> Estimate:
    """The cost of embedding with these priors; NOTHING if earlier jobs do all of it."""
    from rela.stages.embed.reuse import num_to_embed  # imports NumPy

    total = NOTHING
    for prior in priors:
        weights = "" if prior.weights is None else f"@{prior.weights.name}"
        if outlook.is_new("embed", dataset.name, split, settings.crops, f"{prior.name}{weights}"):
            model = _model_of(outlook, dataset, prior)
            num_new = num_to_embed(outlook.workspace, dataset, split, prior, settings)
            total += outlook.estimator.embed(model, num_new * (settings.crops or 1), settings)
    return total


def _model_of(outlook: Outlook, dataset: DataSet, prior: PriorRequest) -> EmbedKey | None:
    """Architecture and input size of a prior: a run of the recipe, a finished run, or a model name."""
    name = prior.name.removeprefix("run:")
    if name in outlook.trained:
        settings = outlook.trained[name]
        return str(settings.model), int(settings.image_size or 0)
    if outlook.workspace.has_run(name):
        run = outlook.workspace.run(name)
        return run.model, run.image_size
    is_random = name.startswith(RANDOM)
    arch = prior.arch or name.removeprefix(RANDOM).partition("@")[0]
    if ":" in arch.removeprefix(TIMM):
        return None
    if is_random:
        return re.sub(r"-seed\d+$", "", arch), prior.image_size
    return embed_key(arch, prior.image_size if prior.resizes else None, dataset)
