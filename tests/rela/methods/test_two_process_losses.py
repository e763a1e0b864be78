"""Losses over two processes (gloo, CPU) against the whole batch in one.

Each process takes half of every view. In evaluation mode batch norm sees no batch, so that the mean of
both losses and of both gradients has to be that of one process, and so have MoCo's queue (whose keys
are made from shuffled batches) and DINO's centre.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from forked import forked
from tiny_methods import BATCH, SECOND_EPOCH, make_method, perturb_momentum_networks, some_views

METHODS = ("simclr", "mocov2", "mocov3", "barlowtwins", "vicreg", "swav", "dino")
NUM_STEPS = 2
_BUFFERS = ("criterion.", "queue.", "first_queue.", "second_queue.")


def run_steps(rank: int, world_size: int) -> dict[str, dict[str, Any]]:
    """Loss and the backbone's gradient of the last step, and the buffers after it."""
    share = BATCH // world_size
    found = {}
    for name in METHODS:
        method = make_method(name, hyperparameters="reference").eval()
        perturb_momentum_networks(method)
        for seed in range(NUM_STEPS):
            method.zero_grad()
            mine = [v[rank * share : (rank + 1) * share] for v in some_views(method, seed)]
            loss, _ = method(mine, torch.zeros(share, dtype=torch.int64), SECOND_EPOCH)
            loss.backward()
        state = method.state_dict()
        gradients = [p.grad.flatten() for p in method.backbone.parameters()]
        found[name] = {
            "loss": loss.detach(),
            "gradient": torch.cat(gradients),
            "buffers": {k: v for k, v in state.items() if k.startswith(_BUFFERS)},
        }
    return found


def run_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(run_steps(rank, 2), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """Of a single process, then of each of two."""
    folder = tmp_path_factory.mktemp("ranks")
    ranks = [forked().Process(target=run_rank, args=(rank, folder)) for rank in range(2)]
    for process in ranks:
        process.start()
    alone = run_steps(0, 1)
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0
    return [alone, *(torch.load(folder / f"{rank}.pt") for rank in range(2))]


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_do_what_one_does(outcomes: list[dict[str, dict[str, Any]]], name: str):
    alone, first, second = (outcome[name] for outcome in outcomes)
    assert not torch.equal(first["gradient"], second["gradient"])
    for key in ("loss", "gradient"):
        torch.testing.assert_close((first[key] + second[key]) / 2, alone[key], rtol=1e-4, atol=1e-6)
    for key, value in alone["buffers"].items():
        for found in (first, second):
            torch.testing.assert_close(found["buffers"][key], value, rtol=1e-4, atol=1e-6)
