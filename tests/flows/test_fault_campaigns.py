"""The campaigns of benchmarks/faults in their quick size; `scripts/faults` runs the full one.

Covers: kill -9 at an instant of some stages, a flipped bit in everything that is kept; and, marked as slow,
hostile and damaged files, damaged images and odd folders: all promises hold. And the campaigns notice when
one does not.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.faults import CAMPAIGNS, IN_FILE, Tally
from benchmarks.faults.workspaces import content_of, difference, unsound_artifacts
from rela.pipeline.artifact import publish, staging
from rela.pipeline.manifest import Manifest

REPOSITORY = Path(__file__).parents[2]
# one of each way to write a result: once, in parts, as it goes on, for other programs
STAGES = ("convert", "embed shards", "train", "export npy")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("names", "trials", "totals"),
    [
        (("kill", "integrity"), 1, [1] * (len(STAGES) + 19)),
        pytest.param(
            ("files",), 2, [17, 13, 12, 11, *[3] * 9, *[8] * 6, 50, 15, 26], marks=pytest.mark.slow
        ),
        pytest.param(("images",), 3, [*[3] * 10, 30, 2, 12], marks=pytest.mark.slow),
    ],
)
def test_what_is_promised_holds(
    tmp_path: Path, names: tuple[str, ...], trials: int, totals: list[int]
):
    stages = [word for stage in STAGES for word in ("--stage", stage)]
    job = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", *names, "--trials", str(trials), *stages,
         "--scratch", tmp_path, "--json"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    results = json.loads(job.stdout[job.stdout.index("{\n") :])["results"]
    tallies = [tally for name in names for tally in results[name]]
    assert [problem for tally in tallies for problem in tally["broken"]] == []
    assert [tally["total"] for tally in tallies] == totals
    assert job.returncode == 0


def test_every_campaign_is_there():
    for name in CAMPAIGNS:
        module = importlib.import_module(f"benchmarks.faults.{IN_FILE.get(name, name)}")
        assert callable(getattr(module, name))


def test_a_tally_counts_what_broke():
    tally = Tally("promise")
    tally.count()
    tally.count("it did not hold")
    assert tally.lines() == ["1/2  promise", "    it did not hold"]


def test_contents_that_differ_are_told_apart(tmp_path: Path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.h5").write_bytes(b"same")
        (tmp_path / name / "eval.json").write_text(json.dumps({"knn": 0.5, "seconds": len(name)}))
    one = content_of(tmp_path / "one")
    assert difference(content_of(tmp_path / "other"), one) == ""
    (tmp_path / "other" / "rows.h5").write_bytes(b"else")
    (tmp_path / "other" / ".left.tmp").touch()
    assert difference(content_of(tmp_path / "other"), one) == (
        "only in one: .left.tmp; other bytes: rows.h5"
    )


def test_what_looks_complete_and_is_not_is_found(tmp_path: Path):
    destination = tmp_path / "datasets" / "digits"
    with staging(destination) as directory:
        (directory / "train.beton").write_bytes(b"images")
        publish(directory, destination, Manifest("dataset", "ab" * 32))
    assert unsound_artifacts(tmp_path) == ""
    (destination / "train.beton").write_bytes(b"imagez")
    assert "digits looks complete and is not" in unsound_artifacts(tmp_path)
