"""Three sets of hyperparameters: this project's, those of ReLA's reference, those of every publication.

The project's own, "rela", were chosen by measurement (benchmarks/NOTES.md) for trainings of a few thousand
steps with a prior. They are the same for every algorithm: AdamW with a cosine schedule, half of the
steps in stage 1, and a stage 2 that keeps the target loss, with a weight for every algorithm
(`Method.rela_anchor`).

A training of E epochs has the settings that were published for the shortest training of at least E
epochs; a longer one has those of the longest. Images of at most 32 pixels have their own, see
`is_small`: those of solo-learn for CIFAR (scripts/pretrain/cifar, there for 1,000 epochs), because the
publications have none, with LARS's trust at 0.02 and its rates clipped. In ImageNet's settings, LARS
moves the small and few steps of such a training a twentieth as far.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rela.methods.optimizers import OptimizerSettings

HYPERPARAMETERS = ("rela", "reference", "paper")
Hyperparameters = Literal["rela", "reference", "paper"]

RELA_OPTIMIZER = OptimizerSettings("adamw", lr=3e-3, weight_decay=0.01)
RELA_HANDOVER = 0.5  # fraction of all steps

REFERENCE_OPTIMIZER = OptimizerSettings(
    "adamw", lr=1e-3, weight_decay=0.01, schedule="constant", decay_all=True
)

LONGEST = 10**9  # epochs of a recipe for trainings of any length


@dataclass(frozen=True)
class Recipe:
    """The optimizer, and the EMA coefficient of a momentum network at the hand-over."""

    optimizer: OptimizerSettings
    momentum: float | None = None


@dataclass(frozen=True)
class Recipes:
    """`by_epochs`: published length of training → recipe; `small`: for small images, None: the same."""

    by_epochs: Mapping[int, Recipe]
    small: Recipe | None = None

    def choose(self, epochs: int, image_is_small: bool) -> Recipe:
        """The recipe for a training."""
        if image_is_small and self.small is not None:
            return self.small
        enough = [length for length in self.by_epochs if length >= epochs]
        return self.by_epochs[min(enough, default=max(self.by_epochs))]


def _any_length(optimizer: OptimizerSettings, momentum: float | None = None) -> dict[int, Recipe]:
    return {LONGEST: Recipe(optimizer, momentum)}


def _lars(
    lr: float, weight_decay: float, warmup_epochs: int = 10, **more: Any
) -> OptimizerSettings:
    return OptimizerSettings(
        "lars", lr, weight_decay, warmup_epochs=warmup_epochs, **{"lr_batch_size": 256, **more}
    )


def _small_lars(lr: float, weight_decay: float) -> OptimizerSettings:
    return _lars(lr, weight_decay, trust=0.02, clip_trust=True)


def _sgd(lr: float, weight_decay: float, warmup_epochs: int = 0) -> OptimizerSettings:
    return OptimizerSettings(
        "sgd", lr, weight_decay, warmup_epochs=warmup_epochs, lr_batch_size=256
    )


# Presets of the authors' code: byol/configs/byol.py in deepmind-research.
BYOL = Recipes(
    {
        40: Recipe(_lars(0.45, 1e-6), 0.97),
        100: Recipe(_lars(0.45, 1e-6), 0.99),
        300: Recipe(_lars(0.3, 1e-6), 0.99),
        1000: Recipe(_lars(0.2, 1.5e-6), 0.996),
    },
    small=Recipe(_small_lars(1.0, 1e-5), 0.99),
)
# For a ViT-S, as published. The decay grows to ten times this.
DINO = Recipes(
    _any_length(
        OptimizerSettings("adamw", 5e-4, 0.04, warmup_epochs=10, lr_batch_size=256, clip_norm=3.0),
        0.996,
    )
)
# Up to 200 epochs the square root of the batch (appendix B.1): 0.075 √B; table 5 for longer trainings.
SIMCLR = Recipes(
    {200: Recipe(_lars(1.2, 1e-6, lr_power=0.5)), 1000: Recipe(_lars(0.3, 1e-6))},
    small=Recipe(_small_lars(0.4, 1e-4)),
)
# Small images: the authors' notebook for CIFAR-10, with a queue that turns over much faster.
MOCOV2 = Recipes(
    _any_length(_sgd(0.03, 1e-4), 0.999),
    small=Recipe(_sgd(0.03, 5e-4), 0.99),
)
# CONFIG.md of the authors' code.
MOCOV3 = Recipes(
    {
        100: Recipe(_lars(0.6, 1e-6), 0.99),
        300: Recipe(_lars(0.3, 1e-6), 0.99),
        1000: Recipe(_lars(0.3, 1.5e-6), 0.996),
    },
    small=Recipe(_small_lars(0.3, 1e-6), 0.99),
)
# Small images: appendix D of the publication.
SIMSIAM = Recipes(_any_length(_sgd(0.05, 1e-4)), small=Recipe(_sgd(0.03, 5e-4)))
BARLOW_TWINS = Recipes(_any_length(_lars(0.2, 1.5e-6)), small=Recipe(_small_lars(0.3, 1e-4)))
# For 100 epochs appendix C.4 has the rates 0.4, 0.5, 0.8 and 1.2 for batches of 128, 256, 512 and 1024.
VICREG = Recipes(
    {
        100: Recipe(_lars(0.8, 1e-6, lr_batch_size=512, lr_power=0.5)),
        1000: Recipe(_lars(0.2, 1e-6)),
    },
    small=Recipe(_small_lars(0.3, 1e-4)),
)
# For batches of 256, in which the authors have no warm-up.
SWAV = Recipes(_any_length(_lars(0.6, 1e-6, 0)), small=Recipe(_small_lars(0.6, 1e-6)))
# arXiv 1706.02677
SUPERVISED = Recipes(_any_length(_sgd(0.1, 1e-4, 5)))
