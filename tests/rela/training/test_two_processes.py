"""Two processes (gloo, CPU), each with half of every batch, against one process with all of it.

- batch norm: outputs, gradients and running statistics in float64;
- whole runs of both stages: the losses of every step within 1e-3, the same hand-over step, the
  adaptive rule fed with the same numbers on both processes, every sample once.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from forked import forked
from small_runs import PLAN, beton, on_the_cpu
from tiny_methods import tiny_backbone
from torch import Tensor, nn

from rela.data.beton.reader import Beton, open_beton
from rela.distributed.ranks import free_port
from rela.distributed.strategy import RankStrategy
from rela.distributed.sync_batchnorm import SyncBatchNorm, synchronize
from rela.errors import LostRankError
from rela.pipeline.spent import Spent
from rela.representations.targets import Targets
from rela.training.handover import AdaptiveHandOver
from rela.training.run import run_training
from rela.training.two_stage import TwoStage

__all__ = ["beton", "on_the_cpu"]  # fixtures
NUM_STEPS, EARLY_THRESHOLD = 6, 0.38
METHODS = ("byol", "simclr")
# plain SGD: Adam makes as large a step of a gradient that is rounding alone as of any other
SGD = replace(PLAN, optimizer="sgd", lr=0.05, weight_decay=0.0, epochs=2)
PLANS = {name: replace(SGD, method=name) for name in METHODS} | {
    "W learned": replace(SGD, method="byol", head="learned"),
    "W learned, anchored": replace(SGD, method="byol", head="learned", anchor=0.5),
}
NORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1d": (lambda: nn.BatchNorm1d(5), (8, 5)),
    "2d": (lambda: nn.BatchNorm2d(5, momentum=0.3), (8, 5, 3, 2)),
    "2d, cumulative average": (lambda: nn.BatchNorm2d(5, momentum=None), (8, 5, 3, 2)),
    "2d, nothing learned or kept": (
        lambda: nn.BatchNorm2d(5, affine=False, track_running_stats=False), (8, 5, 3, 2)
    ),
    "3d": (lambda: nn.BatchNorm3d(5, eps=1e-2), (8, 5, 2, 3, 2)),
}  # fmt: skip


def norm_results(name: str, rank: int, world_size: int) -> dict[str, Tensor]:
    """Output, gradients and buffers after two steps on this process's share of the samples."""
    make, shape = NORMS[name]
    generator = torch.Generator().manual_seed(0)
    norm = synchronize(nn.Sequential(make())).double() if world_size > 1 else make().double()
    share = slice(rank * shape[0] // world_size, (rank + 1) * shape[0] // world_size)
    for parameter in norm.parameters():
        parameter.data = torch.randn(5, generator=generator, dtype=torch.float64)
    for _ in range(2):
        # far from zero: a difference of large sums would lose most digits
        whole = 1e4 + torch.randn(shape, generator=generator, dtype=torch.float64)
        weights = torch.randn(shape, generator=generator, dtype=torch.float64)
        input = whole[share].clone().requires_grad_()
        norm.zero_grad()
        output = norm(input)
        (output.tanh() * weights[share]).sum().backward()
    assert input.grad is not None
    summed = {f"gradient of {n.split('.')[-1]}": p.grad for n, p in norm.named_parameters()}
    kept = {n.split(".")[-1]: b for n, b in norm.named_buffers()}
    return {"output": output.detach(), "input gradient": input.grad, **summed, **kept}


def train_one(plan: Any, path: Path, directory: Path) -> dict[str, Any]:
    """Run it; what this process saw: losses of stage 1, the rule's averages, samples, wrappings."""
    seen: dict[str, Any] = {"stage 1": [], "samples": [], "unused": [], "steps": []}
    AdaptiveHandOver.__init__.__defaults__ = (EARLY_THRESHOLD,)  # type: ignore[attr-defined]
    update, step = AdaptiveHandOver.update, TwoStage.training_step
    steps_left = AdaptiveHandOver.steps_left
    configure = RankStrategy.configure_ddp

    def record_update(self: AdaptiveHandOver, loss: float) -> bool:
        handed_over = update(self, loss)
        seen["stage 1"].append((loss, self.slow, self.fast, handed_over))
        return handed_over

    def predict(self: AdaptiveHandOver, loss: float) -> int:
        """What the first process tells a person in advance is no step of the rule."""
        with pytest.MonkeyPatch.context() as unrecorded:
            unrecorded.setattr(AdaptiveHandOver, "update", update)
            return steps_left(self, loss)

    def record_step(self: TwoStage, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        result = step(self, batch, batch_idx)
        seen["samples"].append(batch["index"].tolist())
        seen["steps"].append(float(result["objective"]))
        return result

    def record_configure(self: RankStrategy) -> None:
        configure(self)
        seen["unused"].append(self.model.find_unused_parameters)  # type: ignore[union-attr]

    def small_backbone(name: str, size: int, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return tiny_backbone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rela.training.run.build_backbone", small_backbone)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(AdaptiveHandOver, "update", record_update)
        patch.setattr(AdaptiveHandOver, "steps_left", predict)
        patch.setattr(TwoStage, "training_step", record_step)
        patch.setattr(RankStrategy, "configure_ddp", record_configure)
        directory.mkdir(exist_ok=True)
        images = open_beton(path)
        values = torch.randn(len(images), 6, generator=torch.Generator().manual_seed(0)).half()
        start = Spent.now()
        outcome = run_training(
            plan, directory, images, Targets(values), 3, "a-run", start, lambda line: None
        )
    AdaptiveHandOver.__init__.__defaults__ = (0.995,)  # type: ignore[attr-defined]
    return {**seen, "handover_step": outcome.handover_step, "final_loss": outcome.final_loss}


def become_rank(rank: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def work(rank: int, port: int, path: Path, folder: Path) -> None:
    become_rank(rank, port)
    found: dict[str, Any] = {}
    for name, plan in PLANS.items():
        found[name] = train_one(plan, path, folder / name)
    found["norms"] = {name: norm_results(name, rank, 2) for name in NORMS}
    torch.save(found, folder / f"{rank}.pt")


def go_on_from_different_steps(rank: int, port: int, path: Path, folder: Path) -> None:
    """The first process finds the checkpoints of the run alone, the second one nothing."""
    become_rank(rank, port)
    directory = folder / ("alone-byol" if rank == 0 else "empty")
    with pytest.raises(LostRankError, match=r"this one step [06], rank 0 step 6"):
        train_one(PLANS["byol"], path, directory)


def in_two_processes(function: Callable[..., None], *arguments: Any) -> list[Any]:
    """Started, with their number, a free port and `arguments`."""
    port = free_port()
    ranks = [forked().Process(target=function, args=(r, port, *arguments)) for r in range(2)]
    for process in ranks:
        process.start()
    return ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def outcomes(folder: Path, beton: Beton) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Of one process alone, then of each of two."""
    ranks = in_two_processes(work, beton.path, folder)
    alone = {n: train_one(p, beton.path, folder / f"alone-{n}") for n, p in PLANS.items()}
    alone["norms"] = {name: norm_results(name, 0, 1) for name in NORMS}
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0
    first, second = (torch.load(folder / f"{rank}.pt") for rank in range(2))
    return alone, first, second


@pytest.mark.parametrize("name", NORMS)
def test_batch_norm_over_two_processes_is_that_of_the_whole_batch(outcomes: Any, name: str) -> None:
    alone, first, second = (outcome["norms"][name] for outcome in outcomes)
    assert alone.keys() == first.keys()
    for what, expected in alone.items():
        if what in ("output", "input gradient"):
            found = torch.cat([first[what], second[what]])
        elif what.startswith("gradient"):
            found = first[what] + second[what]
        else:
            found = first[what]
            assert torch.equal(first[what], second[what])
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PLANS)
def test_two_processes_learn_what_one_does(outcomes: Any, name: str) -> None:
    alone, first, second = (outcome[name] for outcome in outcomes)
    assert 0 < alone["handover_step"] < NUM_STEPS
    assert first["handover_step"] == second["handover_step"] == alone["handover_step"]
    assert first["stage 1"] == second["stage 1"]  # bitwise: the rule decides alike
    assert torch.tensor(first["stage 1"]).numel()
    means = [(a + b) / 2 for a, b in zip(first["steps"], second["steps"], strict=True)]
    assert len(means) == NUM_STEPS
    assert means == pytest.approx(alone["steps"], rel=1e-3, abs=1e-3)
    assert first["final_loss"] == pytest.approx(sum(means[3:]) / 3, rel=1e-5)
    both = [a + b for a, b in zip(first["samples"], second["samples"], strict=True)]
    assert both == alone["samples"]


@pytest.mark.parametrize("name", PLANS)
def test_unused_parameters_are_looked_for_only_where_there_are_some(
    outcomes: Any, name: str
) -> None:
    assert outcomes[1][name]["unused"] == ([True] if name == "W learned" else [True, False])


def test_processes_that_find_different_checkpoints_do_not_start(
    outcomes: Any, folder: Path, beton: Beton
) -> None:
    for process in in_two_processes(go_on_from_different_steps, beton.path, folder):
        process.join(120)
        assert process.exitcode == 0


def test_batch_norm_stands_alone_in_evaluation_and_without_other_processes() -> None:
    norm = nn.BatchNorm2d(3)
    synced = synchronize(nn.Sequential(nn.BatchNorm2d(3)))
    assert isinstance(synced[0], SyncBatchNorm)  # type: ignore[index]
    assert not dist.is_initialized()
    images = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    for training in (True, False):
        assert torch.equal(norm.train(training)(images), synced.train(training)(images))


def test_timms_norms_go_on_to_activate() -> None:
    timm = pytest.importorskip("timm.layers.norm_act")
    norm = timm.BatchNormAct2d(3)
    images = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = norm.eval()(images).detach()
    assert float(expected.min()) == 0  # it rectifies
    assert torch.equal(synchronize(nn.Sequential(norm)).eval()(images), expected)
