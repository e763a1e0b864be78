"""A new protocol: a class in `PROTOCOLS`, a module that computes it, and its line in `MEASURE` of probing.

It needs no labels and its figure is not a share: used through `rela eval` on a data set without classes and
through a recipe, its figure is in the table, in JSON, in eval.json, and in the recipe's results.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import run_with

from rela.representations.matrix_file import open_matrix
from rela.representations.quality import effective_rank

RANK = """
from dataclasses import dataclass
from typing import ClassVar
from rela.evaluation import protocols

@dataclass(frozen=True)
class RankProtocol:
    name: ClassVar[str] = "rank"
    title: ClassVar[str] = "RankMe"
    data: ClassVar[str] = "images"
    measures: ClassVar[tuple] = (protocols.Measure("rank", "effective rank", is_share=False),)
    is_random: ClassVar[bool] = False

    def describe(self, found):
        return f"effective rank of {found['num_images']} training images"

protocols.PROTOCOLS["rank"] = RankProtocol()

from rela.representations.quality import effective_rank
from rela.stages.evaluate.probing import MEASURE

def measure(probing, protocol, seed):
    features, _ = probing.features("train")
    return {"rank": effective_rank(features.numpy()), "num_images": len(features)}

MEASURE[RankProtocol] = measure
"""
RECIPE = """
[[train]]
dataset = "images"
prior = "none"
model = "shufflenet_v2_x0_5"
image_size = 32
batch_size = 8
epochs = 1

[[eval]]
protocol = ["knn20", "rank"]
"""


def test_it_is_measured_without_labels(
    rela: Callable[..., object], make_tree: Callable[..., Path], tmp_path: Path
) -> None:
    flat = make_tree({f"{i}.png": (16, 16) for i in range(12)}, "flat")
    asked = (
        "eval",
        "--prior",
        "random:shufflenet_v2_x0_5",
        "--image-size",
        32,
        "--protocol",
        "rank",
    )
    _, words, answer, help_text = run_with(
        RANK, ("convert", flat), asked, (*asked, "--json"), ("eval", "--help")
    )
    [path] = (tmp_path / "workspace/representations").glob("*/representations.h5")
    expected = effective_rank(open_matrix(path).values.astype(np.float32))
    assert f"{expected:.2f}" in words.splitlines()[3]
    assert "effective rank" in words.splitlines()[1]
    assert "rank: effective rank of 12 training images" in words
    found = json.loads(answer)
    assert found["cached"]
    assert found["evaluations"][0]["results"]["accuracies"]["rank"]["rank"] == pytest.approx(
        expected
    )
    assert found["over_probe_seeds"][0]["rank"]["rank"]["mean"] == pytest.approx(expected)
    assert "segmentation|rank" in "".join(help_text.split())


def test_a_recipe_shows_its_figure_beside_others(
    rela: Callable[..., object], small_tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    _, words, answer = run_with(
        RANK, ("convert", small_tree), ("run", "recipe.toml"), ("run", "recipe.toml", "--json")
    )
    [row] = json.loads(answer)["results"]
    record = json.loads((tmp_path / "workspace/runs/images-byol-1/eval.json").read_text())
    assert row["accuracies"]["rank"]["mean"] == record["accuracies"]["rank"]["rank"]
    [header] = [line for line in words.splitlines() if line.startswith("data set")]
    assert "20-NN %  RankMe  seconds" in header
    assert f"{row['accuracies']['rank']['mean']:.2f}" in words
    assert f"{100 * row['accuracies']['knn20']['mean']:.2f}" in words
