"""Short versions of the campaigns in benchmarks/faults; `scripts/faults` runs the long ones.

Covers: kill -9 at an instant of every stage, four jobs at once on one key, a flipped bit in everything that
is kept: all promises hold. And the campaigns notice when one does not.
"""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.faults import CAMPAIGNS
from benchmarks.faults.tally import Tally
from benchmarks.faults.workspaces import content_of, difference, unsound_artifacts
from rela.pipeline.artifact import publish, staging
from rela.pipeline.manifest import Manifest

REPOSITORY = Path(__file__).parents[2]


def test_what_is_promised_holds(tmp_path: Path):
    names = ["kill", "concurrency", "integrity"]
    job = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", *names, "--trials", "1", "--scratch", tmp_path,
         "--json"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = json.loads(job.stdout[job.stdout.index("{\n") :])["results"]
    broken = [problem for tallies in found.values() for t in tallies for problem in t["broken"]]
    assert (broken, job.returncode) == ([], 0)
    assert sum(t["total"] for tallies in found.values() for t in tallies) == 5 + 3 + 9


def test_every_campaign_is_there():
    folder = REPOSITORY / "benchmarks" / "faults"
    assert all((folder / f"{name}.py").is_file() for name in CAMPAIGNS)


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
