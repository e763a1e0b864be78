"""What runs cost, in one place (rela.stages.workspace.run), and figures over seeds (rela.stages.display)."""

import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import run_rela
from finished_runs import finished_run

from rela.stages.display import Spread
from rela.stages.workspace.run import Run


@pytest.fixture
def run(tmp_path: Path, small_tree: Path) -> Run:
    workspace = tmp_path / "workspace"
    run_rela("--workspace", workspace, "convert", small_tree)
    return finished_run(workspace, "images", "shufflenet_v2_x0_5", "mine")


def test_the_ledger_is_read_whole_or_not_at_all(run: Run):
    assert (run.seconds_by_phase, run.total_seconds) == ({}, None)
    costs = {"seconds": {"convert": 1.5, "stage2": 2.0}, "total_seconds": 3.5}
    (run.path / "cost.json").write_text(json.dumps(costs))
    assert run.seconds_by_phase == costs["seconds"]
    assert (
        run.total_seconds == 3.5 and run.cpu_seconds is None
    )  # of a version that did not measure it
    (run.path / "cost.json").write_text('{"total_seconds": "much"}')
    assert (run.seconds_by_phase, run.total_seconds) == ({}, None)


@pytest.mark.parametrize(
    ("prior", "crops", "embedded"), [(None, None, 0), ("p", 0, 24), ("p", 3, 72)]
)
def test_the_prior_looks_at_every_image_or_crop(
    run: Run, prior: str | None, crops: int | None, embedded: int
):
    manifest = replace(
        run.manifest,
        content={**run.manifest.content, "prior": prior, "num_images": 24, "num_steps": 5},
        parameters={**run.manifest.parameters, "crops": crops, "batch_size": 8},
    )
    of = Run(run.path, manifest)
    assert of.num_images_embedded == embedded
    assert of.num_images_seen == 40 + embedded


def test_a_spread_is_that_of_a_sample():
    values = [0.5, 0.25, 0.75]
    found = Spread.of(values)
    assert (found.mean, found.std) == (0.5, statistics.stdev(values))
    assert found.percent() == "50.00 ± 25.00" and found.words(1) == "0.5 ± 0.2"
    assert Spread.of([12.34]).words(1) == "12.3"
