"""`rela cache`: listing, checking and cleaning a workspace.

- ls: every artifact and leftover with the bytes that lie on disk, and whether a job holds it;
- verify: one flipped bit anywhere is found and named, status 65; an unreadable manifest too;
- gc: removes old representations and targets, and what killed jobs left; never data sets, runs, what
  was used lately, what another process holds, or what an interrupted run needs;
- what was removed is computed again, to the same bytes.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import REPOSITORY, TINY, read_json, run_rela
from damages import flip_bit
from pictures import SMALL_TREE, save_tree

from rela.pipeline.errors import BusyError
from rela.pipeline.locks import in_use, is_held, remove_unused
from rela.pipeline.owner import owner_token

DAY = 24 * 3600
PRIOR = ("--prior", "random:shufflenet_v2_x0_5", "--image-size", "32")
TRAIN = (*TINY, "--epochs", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, its representations, targets and a run."""
    root = tmp_path_factory.mktemp("made")
    save_tree(root / "images", SMALL_TREE)
    workspace = root / "workspace"
    for command in (
        ("convert", root / "images"),
        ("embed", *PRIOR),
        ("train", *TRAIN, "--handover", 0.5, "--name", "first"),
    ):
        run_rela("--workspace", workspace, *command)
    return workspace


@pytest.fixture
def workspace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in the current directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(made, tmp_path / "workspace"))


def only(parent: Path) -> Path:
    (found,) = (path for path in parent.iterdir() if not path.name.startswith("."))
    return found


def make_old(directory: Path, days: float = 100) -> None:
    then = time.time() - days * DAY
    os.utime(directory / "manifest.json", (then, then))


def listed(*arguments: str) -> list[dict[str, Any]]:
    return read_json(run_rela("cache", *arguments, "--json"))["entries"]


def test_ls_counts_the_bytes_on_disk(workspace: Path):
    entries = {(e["kind"], e["name"]): e for e in listed("ls")}
    assert {kind for kind, _ in entries} == {"data set", "representations", "targets", "run"}
    for entry in entries.values():
        files = (Path(folder) / n for folder, _, names in os.walk(entry["path"]) for n in names)
        on_disk = sum(file.stat().st_size for file in files)
        assert entry["num_bytes"] == on_disk
        assert not entry["held"]
    words = run_rela("cache", "ls").stdout
    assert "4 entries" in words and "just now" in words


@pytest.mark.parametrize("kind", ["datasets", "representations", "targets", "runs"])
def test_verify_names_what_has_one_bit_flipped(workspace: Path, kind: str):
    assert run_rela("cache", "verify").stdout.count(": sound") == 4
    artifact = only(workspace / kind)
    victim = artifact / sorted(read_json(artifact / "manifest.json")["file_sha256"])[-1]
    flip_bit(victim)
    result = run_rela("cache", "verify", exit_code=65)
    assert result.stdout.count(": sound") == 3
    said = f"{artifact.name}/{victim.name} is damaged"
    assert said in result.stdout
    assert said in run_rela("cache", "verify", artifact.name, exit_code=65).stdout


def test_verify_names_a_damaged_manifest(workspace: Path):
    targets = only(workspace / "targets")
    path = targets / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"targets", b"tArgets", 1))
    said = f"{targets.name}/manifest.json was changed after it was written"
    assert said in run_rela("cache", "verify", exit_code=65).stdout


def test_verify_knows_the_names(workspace: Path):
    assert "nothing called nothing in" in run_rela("cache", "verify", "nothing", exit_code=2).stderr


def test_gc_removes_what_is_old_and_can_be_made_again(workspace: Path):
    representations, targets = only(workspace / "representations"), only(workspace / "targets")
    bytes_before = (representations / "representations.h5").read_bytes()
    for kind in ("datasets", "representations", "targets", "runs"):
        make_old(only(workspace / kind))
    would = run_rela("cache", "gc", "--dry-run").stdout
    assert representations.is_dir()
    did = run_rela("cache", "gc").stdout
    assert did == would.replace("would remove", "removed")
    assert not representations.exists() and not targets.exists()
    assert not list((workspace / "representations").iterdir())
    assert only(workspace / "datasets").is_dir() and only(workspace / "runs").is_dir()
    run_rela("embed", *PRIOR)
    assert (representations / "representations.h5").read_bytes() == bytes_before


def test_gc_leaves_what_was_used_lately(workspace: Path):
    representations = only(workspace / "representations")
    make_old(representations)
    run_rela("embed", *PRIOR)  # a hit is a use
    assert "removed 0 B" in run_rela("cache", "gc").stdout
    make_old(representations, days=20)
    assert "removed 0 B" in run_rela("cache", "gc").stdout
    assert "removed representations" in run_rela("cache", "gc", "--unused-days", "10").stdout


def test_gc_leaves_what_another_process_holds(workspace: Path):
    targets = only(workspace / "targets")
    code = (
        "import sys, pathlib; from rela.pipeline.locks import in_use\n"
        "with in_use(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(targets)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    make_old(targets)
    assert [e["name"] for e in listed("ls") if e["held"]] == [targets.name]
    assert f"kept targets {targets.name}: a job uses it" in run_rela("cache", "gc").stdout
    holder.kill()  # the kernel gives the lock back
    holder.communicate()
    assert f"removed targets {targets.name}" in run_rela("cache", "gc").stdout


def test_gc_leaves_what_an_interrupted_run_needs(workspace: Path):
    run, representations = only(workspace / "runs"), only(workspace / "representations")
    (run / "manifest.json").unlink()
    make_old(representations)
    assert "removed 0 B" in run_rela("cache", "gc").stdout
    assert [e["name"] for e in listed("ls") if e["kind"] == "interrupted run"] == ["first"]
    run_rela("train", "--resume")
    make_old(representations)
    assert "removed representations" in run_rela("cache", "gc").stdout


def test_gc_clears_what_killed_jobs_left(workspace: Path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    parent = workspace / "representations"
    here, there = owner_token().rsplit("-", 2)[0], "another-host"
    names = {
        f".staging-x@{here}-{ended.pid}-0badcafe": True,
        f".removed-x@{here}-{ended.pid}-0badcafe": True,
        f".staging-x@{here}-{os.getpid()}-0badcafe": False,  # a job that lives
        f".staging-x@{there}-1-0badcafe": False,  # nobody can know
    }
    for name in names:
        (parent / name).mkdir()
        (parent / name / "half.h5").write_bytes(b"1234")
    run_rela("cache", "gc")
    assert {name: not (parent / name).exists() for name in names} == names
    left = parent / f".staging-x@{there}-1-0badcafe"
    os.utime(left, (0, 0))
    run_rela("cache", "gc", "--unused-days", 0)
    assert left.exists()  # a file in it is new
    os.utime(left / "half.h5", (0, 0))
    run_rela("cache", "gc")
    assert not (parent / f".staging-x@{there}-1-0badcafe").exists()


def test_gc_removes_old_parts_and_no_others(workspace: Path):
    parts = workspace / "representations" / ".parts-0123"
    parts.mkdir()
    (parts / "part-000000").write_bytes(b"1234")
    run_rela("cache", "gc")
    assert parts.is_dir()
    os.utime(parts / "part-000000", (0, 0))
    os.utime(parts, (0, 0))
    assert "removed parts" in run_rela("cache", "gc").stdout
    assert not parts.exists()


def test_a_removed_artifact_is_not_used(workspace: Path):
    targets = only(workspace / "targets")
    with in_use(targets):
        assert is_held(targets)
        assert not remove_unused(targets, time.time() + DAY)
    assert not is_held(targets)
    assert remove_unused(targets, time.time() + DAY)
    with pytest.raises(BusyError, match="was just removed"), in_use(targets):
        raise AssertionError("never reached")


def test_an_empty_workspace_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    said = [run_rela("cache", command).stdout for command in ("ls", "verify", "gc")]
    assert said == ["nothing here yet\n", "nothing here yet\n", "removed 0 B in all\n"]
