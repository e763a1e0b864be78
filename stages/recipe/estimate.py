"""Estimated seconds of a job: from rates of the workspace, else from a few measured steps, else None."""

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rela.errors import RelaError
from rela.evaluation.protocols import DEFAULT_PROTOCOLS
from rela.pipeline.manifest import Manifest
from rela.sources.image_file import BadImageError, opened_image
from rela.sources.source import ImageSource
from rela.stages.recipe.rates import EmbedKey, Rates, TrainRates, train_key
from rela.stages.settings import ConvertSettings, EmbedSettings, EvaluateSettings
from rela.stages.train.resolve import resolve_hyperparameters, resolve_settings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import ResolvedSettings, TrainSettings

MEASURED_NOW = "measured now"
_ENCODED_SECONDS = 1.0
_MEASURED_SIDES = 50  # images whose size is read
_TYPICAL_LOSS = 0.5  # of stage 1, for the adaptive rule's number of steps


@dataclass(frozen=True)
class Estimate:
    """Seconds (None: unknown), and their source in words."""

    seconds: float | None
    basis: str

    def __add__(self, other: "Estimate") -> "Estimate":
        known = self.seconds is not None and other.seconds is not None
        seconds = (self.seconds or 0.0) + (other.seconds or 0.0) if known else None
        return Estimate(seconds, "; ".join(dict.fromkeys([self.basis, other.basis])))


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
        known = self.rates.convert.seconds_per_image
        if known is not None:
            return Estimate(known * num_images, self.rates.convert.basis)
        seconds = self._now(
            ("convert", images.root, settings), lambda: _encode_seconds(images, settings)
        )
        return _times(seconds, num_images)

    def embed(self, key: EmbedKey | None, num_images: int, settings: EmbedSettings) -> Estimate:
        """A prior of this architecture and input size over so many images or crops."""
        if key is None:
            return Estimate(None, "the prior's architecture is unknown")
        rate = self.rates.embed.get(key)
        if rate is not None and rate.seconds_per_image is not None:
            return Estimate(rate.seconds_per_image * num_images, rate.basis)
        seconds = self._now(("embed", *key), lambda: _forward_seconds(key, settings))
        return _times(seconds, num_images)

    def train(self, dataset: DataSet, settings: TrainSettings) -> Estimate:
        """Every step of both stages, waiting for data, and the overhead of a run."""
        from rela.data.sampling import num_chosen

        resolved = resolve_settings(dataset, settings)
        resolved = resolve_hyperparameters(resolved, dataset.content.labelled)
        rates = self.rates.train.get(train_key(resolved), TrainRates())
        num_images = num_chosen(dataset.num_images("train"), resolved.data_ratio)
        num_steps = resolved.epochs * (num_images // resolved.batch_size)
        stage1_steps, assumed = _stage1_steps(resolved, num_steps, rates)
        steps = {1: stage1_steps, 2: num_steps - stage1_steps}
        seconds, basis = rates.overhead, []
        for stage, count in steps.items():
            if count == 0:
                continue
            per_image = rates.stages[stage].seconds_per_image
            basis.append(rates.stages[stage].basis)
            if per_image is None:
                key = "train", stage, *train_key(resolved), resolved.precision
                measured = functools.partial(
                    _step_seconds, resolved, len(dataset.content.class_names), stage
                )
                per_image, basis[-1] = self._now(key, measured), MEASURED_NOW
            if per_image is None:
                return Estimate(None, f"no run of {resolved.model} at {resolved.image_size} px yet")
            seconds += count * resolved.batch_size * per_image
        seconds += num_steps * resolved.batch_size * (rates.wait.seconds_per_image or 0.0)
        return Estimate(seconds, "; ".join(dict.fromkeys([*basis, *assumed])))

    def evaluate(self, dataset: DataSet, key: EmbedKey, settings: EvaluateSettings) -> Estimate:
        """Features of both splits, and the linear probes; other trained protocols are not estimated."""
        num_images, num_train = dataset.num_images(), dataset.num_images("train")
        rate = self.rates.evaluate.get(key)
        if rate is not None and rate.seconds_per_image is not None:
            return Estimate(rate.seconds_per_image * num_images, rate.basis)
        if not set(settings.protocol) <= set(DEFAULT_PROTOCOLS):
            return Estimate(None, f"no evaluation of {key[0]} at {key[1]} px yet")
        num_classes = len(dataset.content.class_names)
        probes = self._now(
            ("probes", *key, num_train, num_classes),
            lambda: _probe_seconds(key, num_train, num_classes),
        )
        if probes is None:
            return Estimate(None, f"no evaluation of {key[0]} at {key[1]} px yet")
        return self.embed(key, num_images, EmbedSettings()) + Estimate(probes, MEASURED_NOW)

    def _now(self, key: Any, measured: Callable[[], float]) -> float | None:
        """Measure once for all jobs with this key; None if disabled or impossible."""
        if not self.measure:
            return None
        if key not in self._measured:
            words = [str(part) for part in key if isinstance(part, str | int)]
            self.say(f"measuring {' '.join(words)}")
            try:
                self._measured[key] = measured()
            except (RelaError, MemoryError) as error:
                self.say(f"not measured: {error}")
                self._measured[key] = None
        found: float | None = self._measured[key]
        return found


def embed_key(arch: str, image_size: int | None, dataset: DataSet) -> EmbedKey:
    """Architecture and input size of a torchvision model, as `rela embed` would choose them."""
    from rela.stages.recipe.trial_steps import published_image_size

    published = published_image_size(arch)
    return arch, published or image_size or dataset.default_image_size


def expected_dataset(workspace: Workspace, images: ImageSource, name: str) -> DataSet:
    """The data set that the conversion will make, with the facts that settings depend on."""
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


def _times(seconds_per_image: float | None, num_images: int) -> Estimate:
    if seconds_per_image is None:
        return Estimate(None, "nothing similar in the workspace yet")
    return Estimate(seconds_per_image * num_images, MEASURED_NOW)


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
        step = _adaptive_steps()
    if step >= num_steps:
        return num_steps, []
    return step, [f"hand-over assumed at step {step}"]


@functools.cache
def _adaptive_steps() -> int:
    """Steps until the adaptive rule hands over if the loss is constant from the start."""
    from rela.training.handover import AdaptiveHandOver

    return AdaptiveHandOver().steps_left(_TYPICAL_LOSS)


def _step_seconds(settings: TrainSettings, num_classes: int, stage: int) -> float:
    from rela.stages.recipe.trial_steps import train_seconds_per_image

    return train_seconds_per_image(ResolvedSettings(**vars(settings)), num_classes, (stage,))[stage]


def _forward_seconds(key: EmbedKey, settings: EmbedSettings) -> float:
    from rela.stages.recipe.trial_steps import embed_seconds_per_image

    return embed_seconds_per_image(*key, settings.batch_size, settings.device)


def _probe_seconds(key: EmbedKey, num_train: int, num_classes: int) -> float:
    from rela.models.backbones import build_backbone, feature_dim
    from rela.stages.recipe.trial_steps import probe_seconds

    width = feature_dim(build_backbone(key[0], key[1], seed=0), key[1])
    return probe_seconds(num_train, width, num_classes)


def _encode_seconds(images: ImageSource, settings: ConvertSettings) -> float:
    """Seconds per image on all cores, from as many spaced-out images as can be encoded in a second."""
    from rela.data.beton.encoding import encode_image
    from rela.stages.convert import encoding_by

    samples = images.splits["train"]
    samples = samples[:: max(1, len(samples) // 500)]
    start, done = time.perf_counter(), 0
    for sample in samples:
        try:
            encode_image(sample.read(images.root), encoding_by(settings), 0.5)
        except BadImageError:
            continue
        finally:
            done += 1
        if time.perf_counter() - start > _ENCODED_SECONDS:
            break
    return (time.perf_counter() - start) / done / len(os.sched_getaffinity(0))
