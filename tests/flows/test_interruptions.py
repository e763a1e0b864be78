"""Jobs that are interrupted, through the command line, on a tiny tree of real image files.

Covers: a killed embedding, Ctrl-C, runs killed early and late that go on; what they cost; what stops one from
going on (features that are gone, changed settings, another job in its folder), and what leaves nothing.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from command_line import TINY, read_json

from rela.errors import DataError
from rela.pipeline.lease import Leases
from rela.pipeline.locks import exclusive
from rela.pipeline.parts import PartStore
from rela.stages.workspace.workspace import Workspace


def test_a_killed_embedding_goes_on_from_its_parts_to_the_same_bytes(
    rela: Callable[..., Result], small_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rela.representations.matrix_file.ROWS_PER_PART", 4)
    prior = ("--prior", "random:shufflenet_v2_x0_5", "--image-size", 32)
    rela("--workspace", "whole", "convert", small_tree)
    rela("--workspace", "whole", "embed", *prior)
    rela("--workspace", "killed", "convert", small_tree)
    write = PartStore.write
    written = []

    def write_two_then_die(
        store: PartStore, part: int, content: bytes, seconds: float, leases: Leases
    ) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(part)
        write(store, part, content, 1000 + seconds, leases)

    with monkeypatch.context() as patched:
        patched.setattr(PartStore, "write", write_two_then_die)
        rela("--workspace", "killed", "embed", *prior, exit_code=130)
    assert not list((tmp_path / "killed/representations").glob("*/representations.h5"))
    resumed = rela("--workspace", "killed", "embed", *prior)
    assert "resuming after 2 of 6 parts" in resumed.stderr
    [whole] = (tmp_path / "whole/representations").glob("*/representations.h5")
    [again] = (tmp_path / "killed/representations").glob("*/representations.h5")
    assert whole.read_bytes() == again.read_bytes()
    manifest = json.loads((again.parent / "manifest.json").read_text())
    assert manifest["provenance"]["seconds"] > 2000  # the killed call's parts are counted


def test_ctrl_c_leaves_a_run_that_resumes_to_the_end(
    rela: Callable[..., Result], small_tree: Path, tmp_path: Path
) -> None:
    rela("convert", small_tree)
    command = [sys.executable, "-m", "rela", "train", "--prior", "none", "--epochs", "12", *TINY]
    repository = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
        # shells start background jobs, this suite among them, with Ctrl-C ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 2/"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    [row] = read_json(rela("status", "--json"))["resumable"]
    assert row["command"] == "rela train --resume --name images-byol-1"
    resumed = rela("train", "--resume")
    assert "resuming after epoch" in resumed.stderr
    records = (tmp_path / "workspace/runs/images-byol-1/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in records] == list(range(12))
    losses = [json.loads(line)["loss"] for line in records]
    assert np.isfinite(losses).all()


def test_a_run_whose_representations_are_gone_says_so(
    rela: Callable[..., Result],
    small_tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rela("convert", small_tree)
    with monkeypatch.context() as patched:
        patched.setattr("rela.training.run._fit", _interrupt)
        rela("train", "--prior", "random", "--epochs", 2, *TINY, exit_code=130)
    shutil.rmtree(tmp_path / "workspace/representations")
    assert "are missing" in rela("train", "--resume", exit_code=2).stderr


def test_a_run_killed_before_its_manifest_is_finished_by_resuming(
    rela: Callable[..., Result], small_tree: Path, tmp_path: Path
) -> None:
    rela("convert", small_tree)
    rela("train", "--prior", "none", "--epochs", 2, *TINY)
    manifest = tmp_path / "workspace/runs/images-byol-1/manifest.json"
    before = json.loads(manifest.read_text())["content"]
    manifest.unlink()
    rela("train", "--resume")
    assert json.loads(manifest.read_text())["content"] == before


def test_a_run_whose_settings_were_changed_does_not_go_on(
    rela: Callable[..., Result], small_tree: Path, tmp_path: Path
) -> None:
    rela("convert", small_tree)
    rela("train", "--prior", "none", "--epochs", 1, *TINY)
    run = tmp_path / "workspace" / "runs" / "images-byol-1"
    (run / "manifest.json").unlink()
    config = json.loads((run / "config.json").read_text())
    config["settings"]["seed"] = 7
    (run / "config.json").write_text(json.dumps(config))
    message = rela("train", "--resume", exit_code=65).stderr
    assert "config.json was changed after the run began" in message
    config["settings"] |= {"seed": 0, "devices": "1", "checkpoint_minutes": 3.0}
    (run / "config.json").write_text(json.dumps(config))
    rela("train", "--resume")


def test_an_interrupted_attempt_is_on_the_account(
    rela: Callable[..., Result],
    small_tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rela("convert", small_tree)

    def waste_a_second(*arguments: Any) -> None:
        time.sleep(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("rela.training.run._fit", waste_a_second)
        rela("train", "--prior", "none", "--epochs", 1, *TINY, exit_code=130)
    rela("train", "--resume")
    cost = json.loads((tmp_path / "workspace/runs/images-byol-1/cost.json").read_text())
    assert cost["seconds"]["other"] > 1


def nothing_yet(workspace: Workspace) -> list[Any]:
    """What a job finds that looked for runs before another began one."""
    return []


def begun_twice(
    rela: Callable[..., Result],
    command: tuple[Any, ...],
    monkeypatch: pytest.MonkeyPatch,
    *blind: str,
) -> str:
    """What a second job says while the first trains, which is interrupted then; `blind` finds nothing."""
    outputs = []

    def train_again(*arguments: Any) -> None:
        with monkeypatch.context() as patched:
            for method in blind:
                patched.setattr(Workspace, method, nothing_yet)
            outputs.append(rela(*command, exit_code=75).stderr)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("rela.training.run._fit", train_again)
        rela(*command, exit_code=130)
    return outputs[0]


def test_two_trainings_of_one_run_do_not_mix(
    rela: Callable[..., Result], small_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rela("convert", small_tree)
    command = ("train", "--prior", "none", "--epochs", 1, *TINY)
    said = begun_twice(rela, command, monkeypatch)
    assert f"in use by process {os.getpid()}" in said
    rela(*command)


@pytest.mark.parametrize("named", [("--name", "mine"), ()])
def test_a_training_that_another_job_began_just_now_is_not_begun_twice(
    rela: Callable[..., Result], small_tree: Path, tmp_path: Path, named: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The second job looked for runs before the first had written its settings."""
    rela("convert", small_tree)
    command = ("train", "--prior", "none", "--epochs", 1, *TINY, *named)
    said = begun_twice(rela, command, monkeypatch, "unfinished_runs")
    assert f"in use by process {os.getpid()}" in said
    monkeypatch.setattr(Workspace, "unfinished_runs", nothing_yet)
    rela(*command)  # whose first job was killed in the meantime
    monkeypatch.setattr(Workspace, "runs", nothing_yet)
    assert "already finished" in rela(*command).stdout
    assert len(list((tmp_path / "workspace" / "runs").iterdir())) == 1


def test_a_training_killed_before_it_wrote_its_settings_is_in_nobodys_way(
    rela: Callable[..., Result], small_tree: Path, tmp_path: Path
) -> None:
    rela("convert", small_tree)
    runs = tmp_path / "workspace" / "runs"
    for name in ("images-byol-1", "mine"):
        (runs / name).mkdir(parents=True)
        (runs / name / ".lock").write_text("process 1")
    (runs / "letters").mkdir()
    (runs / "letters" / "to-a-friend.txt").write_text("dear")
    command = ("train", "--prior", "none", "--epochs", 1, *TINY)
    rela(*command, "--name", "mine")
    rela(*command, "--seed", 1)
    assert "a run with other settings" in rela(*command, "--name", "letters", exit_code=2).stderr
    assert {run["name"] for run in read_json(rela("status", "--json"))["runs"]} == {
        "images-byol-1", "mine",
    }  # fmt: skip
    assert (runs / "letters" / "to-a-friend.txt").read_text() == "dear"


def test_a_training_that_cannot_begin_leaves_nothing_to_resume(
    rela: Callable[..., Result], small_tree: Path
) -> None:
    rela("convert", small_tree)
    for wrong in (("--batch-size", 500), ("--devices", "two"), ("--devices", "0")):
        rela("train", "--prior", "none", *TINY, *wrong, exit_code=2)
    assert read_json(rela("status", "--json"))["resumable"] == []


def _interrupt(*arguments: Any) -> None:
    raise KeyboardInterrupt


def test_a_training_that_cannot_begin_leaves_alone_what_another_job_has_locked_since(
    rela: Callable[..., Result], small_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rela("convert", small_tree)
    run = tmp_path / "workspace" / "runs" / "images-byol-1"

    with ExitStack() as stack:

        def fail(*arguments: Any) -> None:
            run.mkdir(parents=True)
            (run / "config.json").write_text("{}")
            stack.enter_context(exclusive(run / ".lock"))  # by another job, at this very moment
            raise DataError("cannot begin")

        monkeypatch.setattr("rela.stages.train.train.fit_run", fail)
        rela("train", "--prior", "none", "--epochs", 1, *TINY, exit_code=65)
        assert {path.name for path in run.iterdir()} == {"config.json", ".lock"}
