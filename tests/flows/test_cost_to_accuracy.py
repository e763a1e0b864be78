"""The proof's table (benchmarks/cost_to_accuracy.py): shares of the baseline's cost, in closed form.

The campaign itself takes hours; here are its figures from made-up runs, and its recipe is read.
"""

from pathlib import Path

from benchmarks.cost_to_accuracy import ALONE, PAIRS, WHOLE, Outcome, recipe_of, report
from rela.stages.recipe.jobs import load_recipe
from rela.stages.workspace.workspace import Workspace


def outcomes(seed: int, gain: float) -> list[Outcome]:
    """Alone: 50 % at the full budget. Both stages: 40 + `gain`, then 60 + `gain` at 100 and 200 images."""
    alone = Outcome("byol", ALONE, 1.0, seed, 0.5, 0.5, 40.0, 400)
    few = Outcome("byol", WHOLE, 0.5, seed, 0.4 + gain, 0.4 + gain, 10.0, 100)
    return [alone, few, Outcome("byol", WHOLE, 1.0, seed, 0.6 + gain, 0.6 + gain, 30.0, 200)]


def test_the_share_of_the_cost_is_interpolated_for_each_seed():
    # seed 0 reaches 50 % at 150 of 400 images, seed 1 at 125
    said = report(
        [*outcomes(0, 0.0), *outcomes(1, 0.05)], {"chance": {"knn20": 0.1, "linear": 0.1}}
    )
    assert "knn20 accuracy at 34 ± 4 % of its images seen (2 seeds)" in said
    assert "linear accuracy at 44 ± 9 % of its seconds (2 seeds)" in said
    assert "cpu seconds" not in said  # not measured
    (row,) = [line for line in said.splitlines() if "both stages" in line and "100 %" in line]
    assert "62.5 ± 3.5" in row and "200" in row


def test_a_run_that_never_gets_there_is_counted():
    said = report([*outcomes(0, 0.0), *outcomes(1, -0.2)], {})
    assert "at 38 % of its images seen, never on 1 seeds (2 seeds)" in said


def test_the_recipe_of_every_pair_is_valid(tmp_path: Path):
    (tmp_path / "images" / "train" / "a").mkdir(parents=True)
    (tmp_path / "lite0.pth").touch()
    given = {"images": str(tmp_path / "images"), "weights": str(tmp_path / "lite0.pth")}
    for name, pair in PAIRS.items():
        recipe = tmp_path / f"{name}.toml"
        recipe.write_text(recipe_of(name, pair.seeds))
        stages = [job.stage for job in load_recipe(recipe, Workspace(tmp_path / "w"), given)]
        per_seed = 5 + 6 * ("budgets" in pair.more) + 2 * ("baselines" in pair.more)
        others = 20 * ("algorithms" in pair.more)
        assert stages.count("train") == per_seed * len(pair.seeds) + others
