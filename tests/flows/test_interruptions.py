"""Jobs that are interrupted, through the command line, on a tiny tree of real image files.

Covers: a killed embedding, Ctrl-C, runs killed early and late that go on; what they cost; what stops one from
going on (features that are gone, changed settings, another job in its folder), and what leaves nothing.
"""

import json
import os
import re
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
from command_line import REPOSITORY, TINY, read_json, run_rela

from rela.errors import DataError
from rela.pipeline.lease import Leases
from rela.pipeline.locks import exclusive
from rela.pipeline.parts import PartStore
from rela.pipeline.spent import Spent
from rela.stages.workspace.workspace import Workspace

RUNS = Path("workspace/runs")
RUN = RUNS / "images-byol-1"
TRAIN = ("train", "--prior", "none", "--epochs", 1, *TINY)


@pytest.fixture(autouse=True)
def converted(rela: Callable[..., Result], small_tree: Path) -> None:
    """A workspace with the small tree, in an empty directory."""
    rela("convert", small_tree)


def interrupt(*arguments: Any) -> None:
    raise KeyboardInterrupt


def test_a_killed_embedding_goes_on_from_its_parts_to_the_same_bytes(
    small_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rela.representations.matrix_file.ROWS_PER_PART", 4)
    prior = ("--prior", "random:shufflenet_v2_x0_5", "--image-size", 32)
    run_rela("--workspace", "whole", "convert", small_tree)
    run_rela("--workspace", "whole", "embed", *prior)
    run_rela("--workspace", "killed", "convert", small_tree)
    write = PartStore.write
    written = []

    def write_two_then_die(
        store: PartStore, part: int, content: bytes, spent: Spent, leases: Leases
    ) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(part)
        write(store, part, content, spent + Spent(1000, 2000), leases)

    with monkeypatch.context() as patched:
        patched.setattr(PartStore, "write", write_two_then_die)
        run_rela("--workspace", "killed", "embed", *prior, exit_code=130)
    assert not list((tmp_path / "killed/representations").glob("*/representations.h5"))
    resumed = run_rela("--workspace", "killed", "embed", *prior)
    assert "resuming after 2 of 6 parts" in resumed.stderr
    [whole] = (tmp_path / "whole/representations").glob("*/representations.h5")
    [again] = (tmp_path / "killed/representations").glob("*/representations.h5")
    assert whole.read_bytes() == again.read_bytes()
    manifest = json.loads((again.parent / "manifest.json").read_text())
    assert manifest["provenance"]["seconds"] > 2000  # the killed call's parts are counted
    assert manifest["provenance"]["cpu_seconds"] > 4000


def test_ctrl_c_leaves_a_run_that_resumes_to_the_end() -> None:
    # shells start background jobs, this suite among them, with Ctrl-C ignored
    python = ["env", "--default-signal=INT", sys.executable]
    command = [*python, "-m", "rela", "train", "--prior", "none", "--epochs", "12", *TINY]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 2/"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert re.search(
        r"rela: interrupted: saved after step \d+; resume with `rela train --resume`", rest
    )
    [row] = read_json(run_rela("status", "--json"))["resumable"]
    assert row["command"] == "rela train --resume --name images-byol-1"
    resumed = run_rela("train", "--resume")
    assert "resuming after" in resumed.stderr
    records = (RUN / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in records] == list(range(12))
    losses = [json.loads(line)["loss"] for line in records]
    assert np.isfinite(losses).all()


def test_a_run_whose_representations_are_gone_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("rela.training.run._fit", interrupt)
        run_rela("train", "--prior", "random", "--epochs", 2, *TINY, exit_code=130)
    shutil.rmtree("workspace/representations")
    assert "are missing" in run_rela("train", "--resume", exit_code=2).stderr


def test_a_run_killed_before_its_manifest_is_finished_by_resuming() -> None:
    run_rela("train", "--prior", "none", "--epochs", 2, *TINY)
    manifest = RUN / "manifest.json"
    before = json.loads(manifest.read_text())["content"]
    manifest.unlink()
    run_rela("train", "--resume")
    assert json.loads(manifest.read_text())["content"] == before


def test_a_run_whose_settings_were_changed_does_not_go_on() -> None:
    run_rela(*TRAIN)
    (RUN / "manifest.json").unlink()
    config = json.loads((RUN / "config.json").read_text())
    config["settings"]["seed"] = 7
    (RUN / "config.json").write_text(json.dumps(config))
    message = run_rela("train", "--resume", exit_code=65).stderr
    assert "config.json was changed after the run began" in message
    config["settings"] |= {"seed": 0, "devices": "1", "checkpoint_minutes": 3.0}
    (RUN / "config.json").write_text(json.dumps(config))
    run_rela("train", "--resume")


def test_an_interrupted_attempt_is_on_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    def waste_a_second(*arguments: Any) -> None:
        start = time.process_time()
        while time.process_time() - start < 1:
            pass
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("rela.training.run._fit", waste_a_second)
        run_rela(*TRAIN, exit_code=130)
    run_rela("train", "--resume")
    cost = json.loads((RUN / "cost.json").read_text())
    assert cost["seconds"]["other"] > 1 and cost["cpu_seconds"] > 1


def nothing_yet(workspace: Workspace) -> list[Any]:
    """What a job finds that looked for runs before another began one."""
    return []


def begun_twice(command: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch, *blind: str) -> str:
    """What a second job says while the first trains, which is interrupted then; `blind` finds nothing."""
    outputs = []

    def train_again(*arguments: Any) -> None:
        with monkeypatch.context() as patched:
            for method in blind:
                patched.setattr(Workspace, method, nothing_yet)
            outputs.append(run_rela(*command, exit_code=75).stderr)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("rela.training.run._fit", train_again)
        run_rela(*command, exit_code=130)
    return outputs[0]


def test_two_trainings_of_one_run_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    said = begun_twice(TRAIN, monkeypatch)
    assert f"is being trained by another process (process {os.getpid()} " in said
    run_rela(*TRAIN)


@pytest.mark.parametrize("named", [("--name", "mine"), ()])
def test_a_training_that_another_job_began_just_now_is_not_begun_twice(
    monkeypatch: pytest.MonkeyPatch, named: tuple[str, ...]
) -> None:
    """The second job looked for runs before the first had written its settings."""
    command = (*TRAIN, *named)
    said = begun_twice(command, monkeypatch, "unfinished_runs")
    assert f"is being trained by another process (process {os.getpid()} " in said
    monkeypatch.setattr(Workspace, "unfinished_runs", nothing_yet)
    run_rela(*command)  # whose first job was killed in the meantime
    monkeypatch.setattr(Workspace, "runs", nothing_yet)
    assert "already finished" in run_rela(*command).stdout
    assert len(list(RUNS.iterdir())) == 1


def test_a_training_killed_before_it_wrote_its_settings_is_in_nobodys_way() -> None:
    for name in ("images-byol-1", "mine"):
        (RUNS / name).mkdir(parents=True)
        (RUNS / name / ".lock").write_text("process 1")
    (RUNS / "letters").mkdir()
    (RUNS / "letters" / "to-a-friend.txt").write_text("dear")
    run_rela(*TRAIN, "--name", "mine")
    run_rela(*TRAIN, "--seed", 1)
    assert (
        "letters is there and is no run"
        in run_rela(*TRAIN, "--name", "letters", exit_code=2).stderr
    )
    assert {run["name"] for run in read_json(run_rela("status", "--json"))["runs"]} == {
        "images-byol-1", "mine",
    }  # fmt: skip
    assert (RUNS / "letters" / "to-a-friend.txt").read_text() == "dear"


def test_a_training_that_cannot_begin_leaves_nothing_to_resume() -> None:
    for wrong in (("--batch-size", 500), ("--devices", "two"), ("--devices", "0")):
        run_rela("train", "--prior", "none", *TINY, *wrong, exit_code=2)
    assert read_json(run_rela("status", "--json"))["resumable"] == []


def test_a_training_that_cannot_begin_leaves_alone_what_another_job_has_locked_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ExitStack() as stack:

        def fail(*arguments: Any) -> None:
            RUN.mkdir(parents=True)
            (RUN / "config.json").write_text("{}")
            stack.enter_context(exclusive(RUN / ".lock"))  # by another job, at this very moment
            raise DataError("cannot begin")

        monkeypatch.setattr("rela.stages.train.train.fit_run", fail)
        run_rela(*TRAIN, exit_code=65)
        assert {path.name for path in RUN.iterdir()} == {"config.json", ".lock"}
