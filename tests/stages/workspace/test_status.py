"""What runs in a workspace (`rela status`, rela.stages.workspace.activity), from its files alone.

- a run whose lock is held is running, and shown with stage, epoch, loss, ETA, its holder and the age of its
  last checkpoint; one that was killed can be resumed; what is silent for long is said to be;
- embeds show parts, rate and who works on them; damaged or hostile files show nothing that is not there;
- `--watch` ends by Ctrl-C with status 0, from another process.
"""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from command_line import REPOSITORY, TINY, Rela, read_json, run_rela
from pictures import SMALL_TREE, save_tree
from snapshots import NOW

from rela.pipeline.lease import Leases
from rela.pipeline.locks import exclusive
from rela.pipeline.parts import PartStore
from rela.pipeline.spent import Spent
from rela.stages.workspace.activity import format_under_way, under_way
from rela.stages.workspace.representations import describe
from rela.stages.workspace.workspace import Workspace
from rela.training.progress import write_progress

ME = f"process {os.getpid()} on {platform.node()}"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a run of 3 epochs that stopped after the first."""
    root = tmp_path_factory.mktemp("stopped")
    there = ("--workspace", root / "workspace")

    def stop(text: str) -> None:
        if text.startswith("epoch 1/"):
            raise KeyboardInterrupt

    run_rela(*there, "convert", save_tree(root / "images", SMALL_TREE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rela.cli.say", stop)
        run_rela(*there, "train", "--prior", "none", "--epochs", 3, *TINY, exit_code=130)
    return root / "workspace"


@pytest.fixture
def interrupted(rela: Rela, stopped: Path, tmp_path: Path) -> Path:
    """The directory of that run, in a copy of the workspace."""
    return shutil.copytree(stopped, tmp_path / "workspace") / "runs" / "images-byol-1"


def parts_in(root: Path, num_parts: int = 4) -> tuple[Workspace, PartStore]:
    """A workspace, and the parts of representations that are being computed there."""
    workspace = Workspace(root)
    return workspace, PartStore(workspace.parts_dir("0123abcd"), num_parts)


def test_a_run_is_running_or_can_be_resumed_by_its_lock(rela: Rela, interrupted: Path):
    write_progress(interrupted / "progress.json", NOW)  # of a job that was killed
    found = read_json(rela("status", "--json"))
    assert found["running"] == []
    assert [row["what"] for row in found["resumable"]] == ["run images-byol-1"]
    with exclusive(interrupted / ".lock"):
        found = read_json(rela("status", "--json"))
        shown = rela("status").stdout
    assert found["resumable"] == []
    assert found["running"] == [
        {"what": "run images-byol-1", "done": "11 of 3 epochs", "eta_seconds": 3753.0, "by": ME}
    ]
    assert "running" in shown and "1:02:33" in shown and "resumable" not in shown


def test_progress_shows_holder_and_checkpoint(rela: Rela, interrupted: Path, tmp_path: Path):
    workspace = Workspace(tmp_path / "workspace")
    with exclusive(interrupted / ".lock"):
        assert f"starting; 3 epochs\n  {ME}" in format_under_way(under_way(workspace))
        write_progress(interrupted / "progress.json", NOW)
        checkpoints = interrupted / "checkpoints"
        checkpoints.mkdir(exist_ok=True)
        (checkpoints / "step-00000003.json").touch()
        os.utime(checkpoints / "step-00000003.json", (time.time() - 125,) * 2)
        words = format_under_way(under_way(workspace), 100)
        assert "stage 1  12/100  loss 0.531  rho 0.981  acc 34.1%  1,234 img/s" in words
        assert f"{ME}, last checkpoint 2:05 ago" in words and "silent" not in words
        old = read_json(interrupted / "progress.json")
        old["updated"] -= 600
        (interrupted / "progress.json").write_text(json.dumps(old))
        assert "no progress for 10:0" in format_under_way(under_way(workspace))
        assert max(map(len, format_under_way(under_way(workspace), 40).splitlines())) <= 40
    assert format_under_way(under_way(workspace)).endswith("no running jobs")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "[" * 10_000, '{"stage": "two"}', "\xff\xfe", "NaN", "a word for the loss"],
)
def test_invalid_progress_is_not_shown(rela: Rela, interrupted: Path, tmp_path: Path, content: str):
    path = interrupted / "progress.json"
    if "loss" in content:
        write_progress(path, NOW)
        content = json.dumps({**read_json(path), "loss": content})
    path.write_text(content, encoding="latin-1")
    with exclusive(interrupted / ".lock"):
        (run,) = under_way(Workspace(tmp_path / "workspace")).runs
    assert run.now is None and run.epochs == 3


def test_embeds_show_parts_rate_and_who_works_on_them(tmp_path: Path):
    workspace, store = parts_in(tmp_path)
    with store.in_use():
        describe(store, "representations of letters (train) by resnet18", "embed", 4000)
        assert under_way(workspace).embeds == []  # nobody's
        with ExitStack() as stack:
            leases = stack.enter_context(Leases(store.directory))
            claimed = list(store.claim([0, 1, 2], leases))
            for part, seconds in zip(claimed[:2], (4.0, 6.0), strict=True):
                store.write(part, b"features", Spent(seconds), leases)
            (embed,) = under_way(workspace).embeds
            assert (embed.num_parts_done, embed.num_parts, embed.workers) == (2, 4, [ME])
            assert embed.images_per_second == pytest.approx(1000 / 5)
            assert embed.eta_seconds == pytest.approx(2 * 5)
            words = format_under_way(under_way(workspace))
            assert "representations of letters (train) by resnet18" in words
            assert f"2 of 4 parts  200 img/s  ETA 0:10\n  {ME}" in words
        assert under_way(workspace).embeds == []


def test_terminal_escapes_are_not_printed(tmp_path: Path):
    workspace, store = parts_in(tmp_path)
    with store.in_use(), Leases(store.directory) as leases:
        describe(store, "representations of \x1b[2Jboo (train) by resnet18", "embed", 4000)
        assert list(store.claim([0], leases)) == [0]
        words = format_under_way(under_way(workspace))
    assert "\x1b" not in words and "boo" in words


def test_an_interrupted_embedding_names_data_set_and_prior(
    rela: Rela, images: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rela.representations.matrix_file.ROWS_PER_PART", 8)
    write, written = PartStore.write, []

    def write_one(store: PartStore, part: int, *rest: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(part)
        write(store, part, *rest)

    monkeypatch.setattr(PartStore, "write", write_one)
    rela("embed", "--prior", "random:shufflenet_v2_x0_5", "--image-size", 32, exit_code=130)
    (row,) = read_json(rela("status", "--json"))["resumable"]
    assert row["what"].startswith("representations of images (train) by random:shufflenet_v2_x0_5")
    assert row["done"] == "1 of 3 parts"


@pytest.mark.parametrize("as_json", [False, True])
def test_watching_ends_by_ctrl_c_with_status_0(rela: Rela, interrupted: Path, as_json: bool):
    # shells start background jobs, this suite among them, with Ctrl-C ignored
    python = ["env", "--default-signal=INT", sys.executable]
    command = [*python, "-m", "rela", "status", "--watch", "--interval", "0.1"]
    with (
        exclusive(interrupted / ".lock"),
        subprocess.Popen(
            [*command, *(["--json"] if as_json else [])], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stderr=subprocess.PIPE,
        ) as watching,
    ):  # fmt: skip
        assert watching.stdout is not None and watching.stderr is not None
        if as_json:
            frames = [json.loads(watching.stdout.readline()) for _ in range(2)]
            assert [frame["runs"][0]["held_by"] for frame in frames] == [ME, ME]
        else:
            assert next(line for line in watching.stdout if ME in line)
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
        assert (watching.wait(), watching.stderr.read()) == (0, "")


@pytest.mark.parametrize(("num_parts", "num_images"), [(-4, 4000), (0, 4000), (4, -1), (1, 4000)])
def test_impossible_part_counts_show_no_odd_times(tmp_path: Path, num_parts: int, num_images: int):
    workspace, store = parts_in(tmp_path, num_parts)
    with store.in_use(), Leases(store.directory) as leases:
        describe(store, "representations of letters (train) by resnet18", "embed", num_images)
        assert leases.take("part-000000")
        for part in (1, 2):
            store.write(part, b"features", Spent(4.0))
        (embed,) = under_way(workspace).embeds
    assert (embed.images_per_second or 0) >= 0 and (embed.eta_seconds or 0) >= 0
