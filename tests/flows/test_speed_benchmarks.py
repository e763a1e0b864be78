"""What the speed benchmarks of training steps compare (benchmarks.speed).

- the plain BYOL module and ours have the same losses, step after step, from the same weights;
- online distillation sees what its prior makes of each batch;
- the GPU benchmark's code, on the CPU and with tiny sizes; its arithmetic; what it says without a GPU.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from benchmarks.speed import gpu, stage2, training_steps
from benchmarks.speed.comparison import Comparison
from benchmarks.speed.stage1 import OnlinePrior
from benchmarks.speed.training_steps import RepeatedBatch

# Lightning 2.6.6 looks at torch's pytrees in a way that torch 2.15 announces the end of.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning",
    "ignore:.*num_workers:UserWarning",
)

SIZE, BATCH, WIDTH = 16, 8, 24


def small_backbone() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, WIDTH),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rela.training.run.build_backbone", lambda *arguments: small_backbone())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


class Objectives(pl.Callback):
    """The algorithm's loss at every step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.found.append(float(outputs["objective"]))


def losses(module: pl.LightningModule, batch: Any) -> list[float]:
    objectives = Objectives()
    training_steps.images_per_second(module, RepeatedBatch(batch, 5), BATCH, [objectives])
    return objectives.found


def test_the_plain_module_and_ours_have_the_same_losses():
    plan = training_steps.byol_plan("small", SIZE, BATCH)
    ours = training_steps.two_stage(plan, 2)
    plain = stage2.PlainBYOL(small_backbone(), WIDTH)
    for part in ("backbone", "projector", "predictor", "momentum_backbone", "momentum_projector"):
        getattr(plain, part).load_state_dict(getattr(ours.method, part).state_dict())
    batch = training_steps.random_batch(plan)
    views = training_steps.normalized(batch["views"])
    expected = losses(plain, (views, batch["label"]))
    found = losses(ours, batch)
    assert found == pytest.approx(expected, abs=1e-4)
    assert len(set(found)) == 5


def test_online_distillation_regresses_what_the_prior_makes_of_the_views():
    plan = training_steps.byol_plan("small", SIZE, BATCH)
    prior = small_backbone()
    module = training_steps.two_stage(plan, 1, WIDTH)
    batch = training_steps.random_batch(plan)
    expected = [copy.deepcopy(prior).eval()(module.normalize(view)) for view in batch["views"]]
    OnlinePrior(prior).on_train_batch_start(None, module, batch, 0)
    for found, wanted in zip(batch["targets"], expected, strict=True):
        torch.testing.assert_close(found, wanted)
        assert not found.requires_grad


def test_without_a_gpu_its_benchmark_says_so(tmp_path: Path):
    with pytest.raises(SystemExit, match="no GPU"):
        gpu.run(1, tmp_path)


@pytest.mark.timeout(600)
def test_the_gpu_benchmark_runs_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "build_backbone", lambda *arguments, **named: small_backbone())
    sizes = gpu.Sizes(("small",), "small", SIZE, 4, BATCH, 3 * BATCH, 20, 30)
    results = gpu.measure(sizes, "cpu", 1, tmp_path)
    compared = [result for result in results if isinstance(result, Comparison)]
    assert [len(comparison.rates) for comparison in compared] == [5, 5, 3, 3]
    for comparison in compared:
        assert all(rate > 0 for rates in comparison.rates.values() for rate in rates)
    assert all("bound by" in comparison.title for comparison in compared)


def test_hours_for_imagenet():
    rates = {"embedding": 1000.0, "stage 1": 400.0, "stage 2": 200.0}
    embedding, *stages = (Comparison(name, "img/s", {"ours": [r]}) for name, r in rates.items())
    minutes, full, budget, saved = (
        figure.values[0] for figure in gpu.imagenet(("resnet50",), [embedding], stages)
    )
    hours_of_all = 1_281_167 / 3600
    assert minutes == pytest.approx(60 * hours_of_all / 1000)
    assert full == pytest.approx(100 * hours_of_all / 200)
    assert budget == pytest.approx(hours_of_all / 1000 + hours_of_all * (25 / 400 + 25 / 200))
    assert saved == pytest.approx(full - budget)
