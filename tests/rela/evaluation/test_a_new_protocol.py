"""A new protocol: a class in `PROTOCOLS`, a module that computes it, and its line in `MEASURE` of probing.

It needs no labels and its figure is not a share: used through `rela eval` on a data set without classes and
through a recipe, its figure is in the table, in JSON, in eval.json, and in the recipe's results.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import Rela, read_json, run_with
from pictures import MakeTree

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


def test_it_is_measured_without_labels_and_a_recipe_shows_it_beside_others(
    rela: Rela, make_tree: MakeTree, small_tree: Path, tmp_path: Path
) -> None:
    flat = make_tree({f"{i}.png": (16, 16) for i in range(12)}, "flat")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    asked = [
        "eval",
        "--prior",
        "random:shufflenet_v2_x0_5",
        "--image-size",
        "32",
        "--protocol",
        "rank",
        "--verbose",
    ]
    recipe = ("run", "recipe.toml")
    _, words, answer, help_text, _, summary, result = run_with(
        RANK, ("convert", flat), asked, (*asked, "--json"), ("eval", "--help"),
        ("convert", small_tree), recipe, (*recipe, "--json"),
    )  # fmt: skip
    [path] = (tmp_path / "workspace/representations").glob("flat-*/representations.h5")
    expected = effective_rank(open_matrix(path).values.astype(np.float32))
    assert f"{expected:.2f}" in words.splitlines()[3]
    assert "effective rank" in words.splitlines()[1]
    assert "RankMe: effective rank of 12 training images" in words
    found = json.loads(answer)
    assert found["cached"]
    measured = found["evaluations"][0]["results"]["accuracies"]["rank"]
    assert measured["rank"] == pytest.approx(expected)
    assert found["over_probe_seeds"][0]["rank"]["rank"]["mean"] == pytest.approx(expected)
    assert "dense-knn|rank" in "".join(help_text.split())

    [row] = json.loads(result)["results"]
    record = read_json(tmp_path / "workspace/runs/images-byol-1/eval.json")
    assert row["accuracies"]["rank"]["mean"] == record["accuracies"]["rank"]["rank"]
    [header] = [line for line in summary.splitlines() if line.startswith("data set")]
    assert "20-NN %  RankMe  seconds" in header
    assert f"{row['accuracies']['rank']['mean']:.2f}" in summary
    assert f"{100 * row['accuracies']['knn20']['mean']:.2f}" in summary
