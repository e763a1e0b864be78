"""What running a recipe would do: every job, whether its result is there, and what it will cost.

Nothing is written into the workspace, no prior is built or fetched, no image is read but to measure.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError
from rela.pipeline.artifact import Artifact
from rela.pipeline.manifest import Manifest
from rela.priors import PriorRequest
from rela.sources.image_file import BadImageError, opened_image
from rela.sources.source import ImageSource
from rela.stages.convert import find_dataset, read_source
from rela.stages.display import format_table
from rela.stages.embed.combine import find_all
from rela.stages.recipe.estimate import NOTHING, Estimate, Estimator, embed_key
from rela.stages.recipe.jobs import Job, embed_requests, embeds_prior
from rela.stages.recipe.rates import EmbedKey, measured_rates
from rela.stages.settings import EmbedSettings
from rela.stages.train.prior import NO_PRIOR, chosen_representations, training_requests
from rela.stages.train.processes import silent
from rela.stages.train.resolve import resolve_settings
from rela.stages.train.train import find_run
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.evaluations import EVALUATION_FILE, read_evaluation
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

THERE, TO_DO, SAME, REFUSED = "there", "to do", "as above", "refused"
_MEASURED_SIDES = 50  # images whose size is looked at


@dataclass(frozen=True)
class PlannedJob:
    """A job, its state, and the seconds it is expected to take (None: unknown)."""

    job: str
    what: str
    state: str
    seconds: float | None
    basis: str


@dataclass(frozen=True)
class Plan:
    """Every job; `seconds` is the sum of what could be estimated, `num_unknown` what could not."""

    jobs: list[PlannedJob]
    seconds: float
    num_unknown: int


def plan_recipe(
    workspace: Workspace,
    jobs: list[Job],
    measure: bool = True,
    say: Callable[[str], None] = print,
) -> Plan:
    """Look every job up; estimate those to do, and measure speeds that are not known if `measure`."""
    planner = _Planner(workspace, jobs, Estimator(measured_rates(workspace), measure, say))
    planned = [planner.plan(number) for number in range(len(jobs))]
    seconds = [job.seconds for job in planned if job.seconds is not None]
    return Plan(planned, round(sum(seconds), 1), len(planned) - len(seconds))


def format_plan(plan: Plan) -> str:
    """The table and its sum."""
    rows = [
        [job.job, job.what, job.state, _rounded(job.seconds, job.state), job.basis or None]
        for job in plan.jobs
    ]
    table = format_table(["job", "what", "state", "seconds", "estimated from"], rows)
    num_to_do = sum(job.state == TO_DO for job in plan.jobs)
    rest = f", and {plan.num_unknown} jobs that could not be estimated" if plan.num_unknown else ""
    return f"{table}\n{num_to_do} of {len(plan.jobs)} jobs to do: {_duration(plan.seconds)}{rest}"


@dataclass
class _Planner:
    workspace: Workspace
    jobs: list[Job]
    estimator: Estimator

    def __post_init__(self) -> None:
        self._datasets: dict[str, DataSet] = {}
        self._there: dict[int, Any] = {}  # what jobs would find
        self._runs: dict[str, tuple[DataSet, TrainSettings]] = {}  # named, and to be trained
        self._seen: set[Any] = set()

    def plan(self, number: int) -> PlannedJob:
        """State and cost of one job, those before it being planned."""
        job = self.jobs[number]
        look_up: Callable[[int, Job], tuple[Any, Estimate]] = getattr(self, f"_{job.stage}")
        try:
            found, estimate = look_up(number, job)
        except ChoiceError as error:
            return PlannedJob(job.stage, job.what, REFUSED, None, str(error))
        if found is not None:
            self._there[number] = found
            return PlannedJob(job.stage, job.what, THERE, 0.0, "")
        state = SAME if estimate is NOTHING else TO_DO
        return PlannedJob(job.stage, job.what, state, estimate.seconds, estimate.basis)

    def _convert(self, number: int, job: Job) -> tuple[DataSet | None, Estimate]:
        images = read_source(Path(job.request.source), job.settings)
        name = job.request.name
        found = find_dataset(self.workspace, images, job.settings, name)
        self._datasets[name] = found or _expected(self.workspace, images, name)
        if found is not None:
            return found, NOTHING
        return None, self.estimator.convert(images, job.settings)

    def _embed(self, number: int, job: Job) -> tuple[Artifact | None, Estimate]:
        dataset = self._dataset(job.request.dataset)
        split = job.request.split
        if split not in dataset.splits:
            raise ChoiceError(f"data set {dataset.name} has no {split} split")
        requests = embed_requests(self.workspace, dataset, job.request)
        if self._all_there(job):
            found = find_all(self.workspace, dataset, requests, job.settings, split)
            if found is not None:
                return found, NOTHING
        return None, self._embeddings(dataset, requests, job.settings, split)

    def _train(self, number: int, job: Job) -> tuple[Artifact | None, Estimate]:
        dataset, name = self._dataset(job.request.dataset), job.request.name
        resolved = resolve_settings(dataset, job.settings)
        if name is not None:
            self._runs[name] = dataset, resolved
        if self._all_there(job):
            found = find_run(self.workspace, dataset, job.settings, name)
            if found is not None:
                return found, NOTHING
        key = "train", dataset.name, resolved
        if key in self._seen and name is None:
            return None, NOTHING
        self._seen.add(key)
        embedding = NOTHING
        prior = resolved.prior
        made_above = any(embeds_prior(self.jobs[i], str(prior), dataset.name) for i in job.needs)
        without = prior in (None, NO_PRIOR) or made_above
        if not without and not self._is_embedded(job, dataset, resolved):
            requests = training_requests(self.workspace, dataset, resolved)
            how = EmbedSettings(crops=resolved.crops or 0)
            embedding = self._embeddings(dataset, requests, how, "train")
        estimate = self.estimator.train(dataset, job.settings)
        return None, estimate if embedding is NOTHING else embedding + estimate

    def _eval(self, number: int, job: Job) -> tuple[Any, Estimate]:
        run = self._there.get(-1 if job.trained_by is None else job.trained_by)
        if job.trained_by is None:
            run = self.workspace.run(job.request.names[0])
        if run is not None:
            trained_on, model = run.dataset, run.model
            size = run.image_size
        else:
            trained = self.jobs[job.trained_by or 0]
            trained_on = trained.request.dataset
            resolved = resolve_settings(self._dataset(trained_on), trained.settings)
            model, size = str(resolved.model), int(resolved.image_size or 0)
        on = job.request.dataset or trained_on
        dataset = self._dataset(on)
        if "val" not in dataset.splits:
            raise ChoiceError(
                f"data set {on} has no val split; convert it with val_fraction = 0.1, or from a folder "
                "with train/ and val/"
            )
        if run is not None:
            name = EVALUATION_FILE if on == trained_on else f"eval-{on}.json"
            found = read_evaluation(run.path / name).accuracies
            # whether other protocols or seeds are missing, the stage finds out when it runs
            if all(protocol in found for protocol in job.settings.protocol):
                return found, NOTHING
        elif self._is_twin(job):
            return None, NOTHING
        return None, self.estimator.evaluate(dataset, (model, size), job.settings)

    def _is_twin(self, job: Job) -> bool:
        """Whether an earlier evaluation measures a run with the same settings on the same data set."""
        trained = self.jobs[job.trained_by or 0]
        dataset = trained.request.dataset
        resolved = resolve_settings(self._dataset(dataset), trained.settings)
        key = "eval", dataset, resolved, job.request.dataset or dataset
        seen = key in self._seen and trained.request.name is None
        self._seen.add(key)
        return seen

    def _dataset(self, name: str) -> DataSet:
        return self._datasets.get(name) or self.workspace.dataset(name)

    def _all_there(self, job: Job) -> bool:
        return all(i in self._there for i in job.needs)

    def _is_embedded(self, job: Job, dataset: DataSet, settings: TrainSettings) -> bool:
        if not self._all_there(job):
            return False
        try:
            chosen_representations(
                self.workspace, dataset, settings, False, silent, may_build=False
            )
        except ChoiceError:
            return False
        return True

    def _embeddings(
        self,
        dataset: DataSet,
        requests: list[PriorRequest],
        settings: EmbedSettings,
        split: str,
    ) -> Estimate:
        """What embedding by one prior or several costs; NOTHING if earlier jobs do all of it."""
        found = (self._embedding(dataset, request, settings, split) for request in requests)
        costs = [estimate for estimate in found if estimate is not NOTHING]
        return sum(costs[1:], costs[0]) if costs else NOTHING

    def _embedding(
        self, dataset: DataSet, request: PriorRequest, settings: EmbedSettings, split: str
    ) -> Estimate:
        """NOTHING if an earlier job embeds the same."""
        weights = "" if request.weights is None else f"@{request.weights.stem}"
        key = "embed", dataset.name, split, settings.crops, f"{request.name}{weights}"
        if key in self._seen:
            return NOTHING
        self._seen.add(key)
        num_images = dataset.num_images(split)
        num_rows = num_images * (settings.crops or 1)
        return self.estimator.embed(self._model_of(dataset, request), num_rows, settings)

    def _model_of(self, dataset: DataSet, request: PriorRequest) -> EmbedKey | None:
        """Architecture and input size of a prior: a run, of the recipe or finished, or by its name."""
        name = request.name.removeprefix("run:")
        if name in self._runs:
            settings = self._runs[name][1]
            return str(settings.model), int(settings.image_size or 0)
        if self.workspace.has_run(name):
            run = self.workspace.run(name)
            return run.model, run.image_size
        arch = request.arch or name.removeprefix("random:").partition("@")[0]
        if ":" in arch:
            return None
        if name.startswith("random:"):
            return arch, request.image_size
        return embed_key(arch, request.image_size, dataset)


def _expected(workspace: Workspace, images: ImageSource, name: str) -> DataSet:
    """The data set that converting will give, as far as settings follow from it."""
    samples = images.splits["train"]
    sides = []
    for sample in samples[:: max(1, len(samples) // _MEASURED_SIDES)]:
        try:
            found = sample.read(images.root)
            if isinstance(found, bytes):
                with opened_image(found) as image:
                    sides.append(min(image.size))
            else:
                sides.append(min(found.shape[:2]))
        except BadImageError:  # converting will list it
            continue
    side = sorted(sides)[len(sides) // 2] if sides else 224
    content = {
        "class_names": images.class_names,
        "labelled": images.labelled,
        "splits": {
            split: {
                "num_images": len(found), "num_jpeg": 0, "num_raw": 0, "images_per_class": [],
                "median_shorter_side_pixels": side, "images_sha256": "", "labels_sha256": "",
            }
            for split, found in images.splits.items()
        },
        "bad_images": [],
        "sources_sha256": "",
    }  # fmt: skip
    manifest = Manifest("dataset", "", content=content, provenance={"seconds": 0.0})
    return DataSet(workspace.datasets_dir / name, manifest)


def _rounded(seconds: float | None, state: str) -> float | str | None:
    if state in (THERE, SAME):
        return None
    return "?" if seconds is None else f"{seconds:.1f}"


def _duration(seconds: float) -> str:
    """`95 s`, `12 min`, `3.4 h`, `5.1 days`."""
    for unit, length in (("days", 86400), ("h", 3600)):
        if seconds >= 2 * length:
            return f"about {seconds / length:.1f} {unit}"
    return f"about {seconds / 60:.0f} min" if seconds >= 600 else f"about {seconds:.0f} s"
