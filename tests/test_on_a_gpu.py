"""What only a GPU can show; skipped without one.

- stage 1 and every algorithm, backward pass and optimizer step included, never wait for the device;
- embedding: the CPU's features to the precision of float16, twice the same bytes, in float16 arithmetic;
- k-NN and the linear probe measure on the GPU what they measure on the CPU, and near-duplicates are the same;
- an interrupted training resumes and ends as the uninterrupted one; one process with NCCL equals none.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from betons import beton_of
from pictures import save_tree
from small_runs import PLAN, losses, train
from tiny_methods import ALGORITHMS, BATCH, SIZE, make_method, shrink_dino

from rela.data.beton.reader import Beton
from rela.evaluation.knn import knn_accuracy
from rela.evaluation.logistic import logistic_probe
from rela.evaluation.protocols import LOGISTIC_PROTOCOL, KNNProtocol
from rela.methods.optimizers import OptimizerSettings
from rela.models.backbones import build_backbone
from rela.models.preprocessing import Preprocessing
from rela.representations.embedder import Embedder
from rela.representations.neighbors import mean_distances, similar_groups
from rela.training.handover import FixedHandOver
from rela.training.two_stage import TwoStage

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
    # versions of torch and Lightning differ from one GPU machine to the next
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def beton(tmp_path_factory: pytest.TempPathFactory) -> Beton:
    sizes = {f"{i}.png": (40, 40) for i in range(12)}
    return beton_of(save_tree(tmp_path_factory.mktemp("images"), sizes), num_classes=3)


@pytest.mark.parametrize("name", ["stage 1", *ALGORITHMS])
def test_steps_never_wait(name: str, monkeypatch: pytest.MonkeyPatch):
    shrink_dino(monkeypatch)
    first = name == "stage 1"
    method = make_method("byol" if first else name)
    settings = OptimizerSettings("adamw", 1e-3, 0.01, "constant")
    loader: Any = type("Loader", (list,), {"accumulate": 1})([None] * 9)
    handover = FixedHandOver(99) if first else None
    module = TwoStage(method, loader, settings, 100, handover, 5, anchor=0.0 if first else 3.0)
    module.cuda()
    optimizer = module.configure_optimizers()
    sizes = [SIZE, SIZE] if first else [view.size for view in method.views()]
    batch = {
        "views": [torch.randint(256, (BATCH, 3, s, s), device="cuda").byte() for s in sizes],
        "label": torch.arange(BATCH, device="cuda") % 3,
        "targets": [torch.randn(BATCH, 5, device="cuda").half() for _ in range(2)],
    }
    before = [p.detach().clone() for p in method.backbone.parameters()]
    module._steps_seen = 50

    def step() -> None:
        with torch.autocast("cuda", dtype=torch.float16):
            loss = module.training_step(batch, 0)["loss"]
        loss.backward()
        module.on_before_optimizer_step(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        method.update_momentum(None if first else module.progress)

    step()  # libraries are loaded, which may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    after = list(method.backbone.parameters())
    assert all(torch.isfinite(p).all() for p in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["resnet18", "timm:test_vit"])
def test_features_are_those_of_the_cpu(name: str, beton: Beton):
    preprocessing, rows = Preprocessing(40, 32), np.arange(len(beton))
    found = {}
    for device in ("cpu", "cuda"):
        embedder = Embedder(build_backbone(name, 32, seed=0), preprocessing, device, 5)
        found[device] = embedder(beton, rows)
    embedder.try_float16(beton)
    assert embedder.arithmetic == "float16"
    half = embedder(beton, rows)
    assert np.array_equal(half, embedder(beton, rows))
    assert np.array_equal(half[:2:-1], embedder(beton, rows[:2:-1]))  # whatever else is embedded
    expected = found["cpu"] - found["cpu"].mean(axis=0)
    embedder.choose_compiled(beton, len(beton), "compiled", print)
    assert embedder.engine.name == "compiled"
    faster = embedder(beton, rows)
    assert np.array_equal(faster, embedder(beton, rows))
    for features in (found["cuda"], half, faster):
        centred = features - features.mean(axis=0)
        norms = np.linalg.norm(centred, axis=1) * np.linalg.norm(expected, axis=1)
        assert ((centred * expected).sum(axis=1) / norms).min() > 0.99


def test_probes_measure_the_same():
    random = np.random.default_rng(0)
    centers = random.standard_normal((7, 30))
    labels = [torch.from_numpy(random.integers(0, 7, count)) for count in (600, 400)]
    rows = [
        torch.from_numpy(centers[y] + 1.5 * random.standard_normal((len(y), 30))).float()
        for y in labels
    ]
    data = (rows[0], labels[0], rows[1], labels[1], 7)
    knn = [knn_accuracy(*data, KNNProtocol(20), device) for device in ("cpu", "cuda")]
    assert knn[0] == pytest.approx(knn[1], abs=0.005) and 0.3 < knn[0] < 1
    linear = [
        logistic_probe(*data, LOGISTIC_PROTOCOL, device=device)["top1"]
        for device in ("cpu", "cuda")
    ]
    assert linear[0] == pytest.approx(linear[1], abs=0.005) and 0.3 < linear[0] < 1


GPU_PLAN = replace(PLAN, handover=0.5, anchor=3.0)


def test_duplicates_and_distances_are_those_of_the_cpu():
    values = np.random.default_rng(0).standard_normal((9000, 24)).astype(np.float16)
    values[8500:] = values[:500]
    matrices = [values[:5000], values[5000:]]
    groups, similarities = similar_groups(matrices, 0.95)
    found = similar_groups(matrices, 0.95, "cuda")
    assert np.array_equal(found[0], groups) and len(set(groups)) <= 8500
    np.testing.assert_allclose(found[1], similarities, atol=1e-5)
    distances = mean_distances(matrices, 10)
    np.testing.assert_allclose(mean_distances(matrices, 10, "cuda"), distances, atol=1e-5)


def test_an_interrupted_training_ends_as_the_uninterrupted_one(tmp_path: Path, beton: Beton):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(GPU_PLAN, whole, beton)

    def interrupt(text: str) -> None:
        if text.startswith("epoch 2/3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(GPU_PLAN, halves, beton, interrupt)
    train(GPU_PLAN, halves, beton)
    assert [epoch for epoch, _ in losses(halves)] == [0, 1, 2]
    for (_, found), (_, expected) in zip(losses(halves), losses(whole), strict=True):
        assert found == pytest.approx(expected, rel=1e-2)


@pytest.fixture
def one_nccl_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trainings take the way of several processes, with one."""
    from datetime import timedelta

    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    from rela.distributed.strategy import RankStrategy, _BatchNormOverRanks

    variables = {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29731", "TORCHELASTIC_RUN_ID": "one",
        "GROUP_RANK": "0",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setitem(os.environ, name, value)

    def options(devices: str, seconds: float) -> dict[str, Any]:
        strategy = RankStrategy(
            cluster_environment=TorchElasticEnvironment(), timeout=timedelta(seconds=60)
        )
        plugins = [_BatchNormOverRanks()]
        return {"accelerator": "gpu", "devices": 1, "strategy": strategy, "plugins": plugins}

    monkeypatch.setattr("rela.training.run.device_options", options)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def test_one_process_with_nccl_trains_as_none(
    tmp_path: Path, beton: Beton, request: pytest.FixtureRequest
):
    train(GPU_PLAN, tmp_path / "alone", beton)
    request.getfixturevalue("one_nccl_process")
    backends: list[str] = []
    train(
        GPU_PLAN, tmp_path / "nccl", beton,
        lambda text: backends.append(dist.get_backend() if dist.is_initialized() else "none"),
    )  # fmt: skip
    assert "nccl" in backends
    for (_, found), (_, expected) in zip(
        losses(tmp_path / "nccl"), losses(tmp_path / "alone"), strict=True
    ):
        assert found == pytest.approx(expected, rel=1e-2)
