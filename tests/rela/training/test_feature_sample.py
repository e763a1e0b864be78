"""Features of an epoch's last images (rela.training.epoch_log), and what runs record of them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import PLAN, beton, on_the_cpu, train

from rela.data.beton.reader import Beton
from rela.representations.quality import effective_rank, feature_std
from rela.training.checkpoints import newest_checkpoint
from rela.training.epoch_log import FeatureSample
from rela.training.run import METRICS_FILE

__all__ = ["beton", "on_the_cpu"]  # fixtures


def batches(number: int, size: int, width: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, width, generator=generator) for _ in range(number)]


@pytest.mark.parametrize(("size", "kept"), [(48, 128), (100, 128), (300, 128)])
def test_the_last_rows_of_an_epoch_are_kept(size: int, kept: int) -> None:
    sample, epoch = FeatureSample(10, 10 * size), batches(10, size)
    for number, features in enumerate(epoch):
        sample.add(number, features)
    expected = torch.cat([f[:kept] for f in epoch])[-kept:].numpy()
    assert len(expected) == sample.num_rows == kept
    assert sample.figures() == {
        "effective_rank": round(effective_rank(expected), 4),
        "feature_std": round(feature_std(expected), 4),
    }
    sample.clear()
    assert sample.figures() == {}


def test_long_epochs_give_more_rows_up_to_a_limit() -> None:
    assert [FeatureSample(1, n).num_rows for n in (10, 64_000, 10**7)] == [128, 500, 1024]


def test_rows_that_are_no_numbers_do_not_count() -> None:
    (features,) = batches(1, 20)
    features[3] = float("nan")
    features[7, 2] = float("inf")
    sample = FeatureSample(1, 20)
    sample.add(0, features)
    sound = np.delete(features.numpy(), [3, 7], axis=0)
    assert sample.figures()["effective_rank"] == round(effective_rank(sound), 4)
    only_nan = FeatureSample(1, 4)
    only_nan.add(0, torch.full((4, 3), float("nan")))
    assert only_nan.figures() == {}


def test_a_run_records_rank_spread_and_rate(tmp_path: Path, beton: Beton) -> None:
    warm = replace(PLAN, schedule="cosine", warmup_epochs=1)
    train(replace(warm, handover=0.5), tmp_path, beton)
    found = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert all(1 < record["effective_rank"] < 12 for record in found)
    assert all(0 < record["feature_std"] < 1 for record in found)
    checkpoint = newest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    (schedule,) = torch.load(checkpoint[0], weights_only=True)["lr_schedulers"]
    assert found[0]["lr"] == pytest.approx(1e-3)  # the end of the warm-up
    assert found[0]["lr"] > found[1]["lr"] > found[2]["lr"] >= schedule["_last_lr"][0]
