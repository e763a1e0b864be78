"""Estimated seconds of a job: from rates of the workspace, else from a few measured steps, else None."""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rela.errors import RelaError
from rela.evaluation.protocols import DEFAULT_PROTOCOLS
from rela.pipeline.manifest import Manifest
from rela.sources.image_file import BadImageError, opened_image
from rela.sources.source import ImageSource
from rela.stages.recipe.rates import EmbedKey, Rate, Rates, TrainRates, train_key
from rela.stages.settings import ConvertSettings, EmbedSettings, EvaluateSettings
from rela.stages.train.resolve import resolve_hyperparameters, resolve_settings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

MEASURED_NOW = "measured now"
_MEASURED_SIDES = 50  # images whose size is read
_TYPICAL_LOSS = 0.5  # of stage 1, for the adaptive rule's number of steps
Measured = Callable[[Any], float]  # of rela.stages.recipe.trial_steps, which imports torch


@dataclass(frozen=True)
class Estimate:
    """Seconds (None: unknown), and their source in words."""

    seconds: float | None
    basis: str

    def __add__(self, other: "Estimate") -> "Estimate":
        known = self.seconds is not None and other.seconds is not None
        seconds = (self.seconds or 0.0) + (other.seconds or 0.0) if known else None
        return Estimate(seconds, "; ".join(filter(None, dict.fromkeys([self.basis, other.basis]))))


NOTHING = Estimate(0.0, "")


@dataclass
class Estimator:
    """Estimates from `rates`; if they lack one, it is measured, provided that `measure` is set."""

    rates: Rates
    measure: bool
    say: Callable[[str], None]
    _measured: dict[Any, Any] = field(default_factory=dict)

    def convert(self, images: ImageSource, settings: ConvertSettings) -> Estimate:
        """Reading, checking and encoding every image, on all cores."""
        num_images = sum(len(samples) for samples in images.splits.values())
        key = "convert", images.root, settings
        return self._rated(
            self.rates.convert,
            num_images,
            key,
            lambda trial: trial.encode_seconds(images, settings),
        )

    def embed(self, key: EmbedKey | None, num_images: int, settings: EmbedSettings) -> Estimate:
        """A prior of this architecture and input size over so many images or crops."""
        if key is None:
            return Estimate(None, "the prior's architecture is unknown")
        return self._rated(
            self.rates.embed[key], num_images, ("embed", *key),
            lambda trial: trial.embed_seconds(*key, settings.batch_size, settings.device),
        )  # fmt: skip

    def train(self, dataset: DataSet, settings: TrainSettings) -> Estimate:
        """Every step of both stages, waiting for data, and the overhead of a run."""
        from rela.data.sampling import num_chosen

        resolved = resolve_settings(dataset, settings)
        resolved = resolve_hyperparameters(resolved, dataset.content.labelled)
        num_classes = len(dataset.content.class_names)
        rates = self.rates.train[train_key(resolved)]
        num_images = num_chosen(dataset.num_images("train"), resolved.data_ratio)
        num_steps = resolved.epochs * (num_images // resolved.batch_size)
        stage1_steps, assumed = _stage1_steps(resolved, num_steps, rates)
        steps = {1: stage1_steps, 2: num_steps - stage1_steps}
        seconds, runs, measured = rates.overhead, Rate(), []
        for stage, count in steps.items():
            if count == 0:
                continue
            per_image = rates.stages[stage].seconds_per_image
            runs.names += rates.stages[stage].names
            if per_image is None:
                key = "train", stage, *train_key(resolved), resolved.precision
                step = operator.methodcaller("step_seconds", resolved, num_classes, stage)
                per_image, measured = self._now(key, step), [MEASURED_NOW]
            if per_image is None:
                return Estimate(None, f"no run of {resolved.model} at {resolved.image_size} px yet")
            seconds += count * resolved.batch_size * per_image
        seconds += num_steps * resolved.batch_size * (rates.wait.seconds_per_image or 0.0)
        runs.names = list(dict.fromkeys(runs.names))
        of_runs = [runs.basis] if runs.names else []
        return Estimate(seconds, "; ".join([*of_runs, *measured, *assumed]))

    def evaluate(self, dataset: DataSet, key: EmbedKey, settings: EvaluateSettings) -> Estimate:
        """Features of both splits, and the linear probes; other trained protocols are not estimated."""
        num_images, num_train = dataset.num_images(), dataset.num_images("train")
        rate = self.rates.evaluate[key]
        if rate.seconds_per_image is not None:
            return Estimate(rate.seconds_per_image * num_images, rate.basis)
        if set(settings.protocol) <= set(DEFAULT_PROTOCOLS):
            sizes = *key, num_train, len(dataset.content.class_names)
            probes = self._now(("probes", *sizes), lambda trial: trial.probe_seconds(*sizes))
            if probes is not None:
                return self.embed(key, num_images, EmbedSettings()) + Estimate(probes, MEASURED_NOW)
        return Estimate(None, f"no evaluation of {key[0]} at {key[1]} px yet")

    def _rated(self, rate: Rate, num_images: int, key: Any, measured: Measured) -> Estimate:
        """So many images at the rate of the workspace, else at one that is measured now."""
        if rate.seconds_per_image is not None:
            return Estimate(rate.seconds_per_image * num_images, rate.basis)
        seconds = self._now(key, measured)
        if seconds is None:
            return Estimate(None, "nothing similar in the workspace yet")
        return Estimate(seconds * num_images, MEASURED_NOW)

    def _now(self, key: Any, measured: Measured) -> float | None:
        """Measure once for all jobs with this key; None if disabled or impossible."""
        if not self.measure:
            return None
        if key not in self._measured:
            from rela.stages.recipe import trial_steps

            words = [str(part) for part in key if isinstance(part, str | int)]
            self.say(f"measuring {' '.join(words)}")
            try:
                self._measured[key] = measured(trial_steps)
            except (RelaError, MemoryError) as error:
                self.say(f"not measured: {error}")
                self._measured[key] = None
        found: float | None = self._measured[key]
        return found


def embed_key(arch: str, image_size: int | None, dataset: DataSet) -> EmbedKey:
    """Architecture and input size of a torchvision model, as `rela embed` would choose them."""
    from rela.stages.recipe.trial_steps import published_image_size

    return arch, image_size or published_image_size(arch) or dataset.default_image_size


def expected_dataset(workspace: Workspace, images: ImageSource, name: str) -> DataSet:
    """The data set that the conversion will make, with the facts that settings depend on.

    Its digests are unknown.
    """
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
        except BadImageError:  # the conversion will list it
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


def _stage1_steps(
    settings: TrainSettings, num_steps: int, rates: TrainRates
) -> tuple[int, list[str]]:
    """Number of steps of stage 1, and the assumption behind it in words, if any."""
    if settings.prior == "none":
        return 0, []
    if settings.handover is not None:
        return round(settings.handover * num_steps), []
    if rates.handover_steps:
        step = sorted(rates.handover_steps)[len(rates.handover_steps) // 2]
    else:
        from rela.training.handover import AdaptiveHandOver

        # of the adaptive rule, if the loss is constant from the start
        step = AdaptiveHandOver().steps_left(_TYPICAL_LOSS)
    if step >= num_steps:
        return num_steps, []
    return step, [f"hand-over assumed at step {step}"]
