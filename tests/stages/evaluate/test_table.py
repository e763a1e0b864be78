"""The table of evaluations (rela.stages.evaluate.table), on figures made up for it.

A mean over run seeds names the settings that tell its runs from the others; runs that differ only in their
seed need no name.
"""

from pathlib import Path
from typing import Any

import pytest

from rela.stages.evaluate.measured import Evaluation
from rela.stages.evaluate.table import format_report, summarize


def evaluation(run: str, prior: str | None, **parameters: Any) -> Evaluation:
    record = {"how": "k = 20", "by_probe_seed": {"0": {"top1": 0.5}}}
    results = {
        "dataset": "photos", "dataset_fingerprint": "", "measurements": {"knn20": record},
        "accuracies": {"knn20": {"top1": 0.5}}, "subject": run,
    }  # fmt: skip
    key = "none" if prior is None else f"{prior}-{parameters.pop('weights', '')}"
    known = {"method": "byol", "epochs": 1, "handover": None, "prior": key, **parameters}
    return Evaluation(Path(f"{run}/eval.json"), results, True, run, known, prior)


def seeds(name: str, prior: str | None, **parameters: Any) -> list[Evaluation]:
    return [evaluation(f"{name}{s}", prior, seed=s, **parameters) for s in (0, 1)]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (seeds("b", "lite0"), ["prior none", "prior lite0"]),
        (seeds("b", None, epochs=3), ["epochs 1", "epochs 3"]),
        (
            seeds("b", "lite0", handover=0.5, epochs=3),
            # a run without a prior has no hand-over that could differ
            ["prior none, epochs 1", "prior lite0, epochs 3"],
        ),
    ],
)
def test_means_of_two_groups_name_the_settings_that_differ(
    second: list[Evaluation], words: list[str]
):
    found = summarize([*seeds("a", None), *second])
    assert [s.words for s in found.over_run_seeds] == [
        f"mean ± std over run seeds 0, 1 ({named})" for named in words
    ]
    table = format_report(found)
    assert all(table.count(f"0, 1 ({named})") == 1 for named in words)
    assert found.over_run_seeds[1].settings.keys() == found.over_run_seeds[0].settings.keys()


def test_priors_of_one_name_are_told_apart_by_their_key():
    several = [*seeds("a", "best", weights="x"), *seeds("b", "best", weights="y")]
    assert [s.settings for s in summarize(several).over_run_seeds] == [
        {"prior": "best best-x"}, {"prior": "best best-y"},
    ]  # fmt: skip


def test_a_single_group_has_no_name():
    [summary] = summarize(seeds("a", None)).over_run_seeds
    assert (summary.words, summary.settings) == ("mean ± std over run seeds 0, 1", {})
