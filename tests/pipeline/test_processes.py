"""Processes that end together, and what is reported about their ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rela.distributed.ranks import LAUNCHER_VARIABLE, Ranks, current_ranks
from rela.pipeline.processes import ProcessExit, run_processes
from rela.stages.train.processes import _failure

REPOSITORY = Path(__file__).parents[2]
LONG = "sleep 60"


def endings(first: str, second: str, grace_seconds: float = 0.5) -> list[ProcessExit]:
    """Of two shell scripts that run together."""
    environments = [{**os.environ, "SCRIPT": script} for script in (first, second)]
    return run_processes(["bash", "-c", 'eval "$SCRIPT"'], environments, grace_seconds)


@pytest.mark.timeout(30)
def test_all_are_waited_for_when_all_end_well() -> None:
    assert endings("sleep 0.3", "true") == [ProcessExit(0, False)] * 2


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("script", "status"), [("exit 65", 65), ("kill -9 $$", -signal.SIGKILL), ("kill $$", -15)]
)
def test_when_one_fails_the_others_do_not_live_on(script: str, status: int) -> None:
    assert endings(LONG, script) == [ProcessExit(-signal.SIGKILL, True), ProcessExit(status, False)]


@pytest.mark.timeout(30)
def test_one_that_notices_by_itself_is_left_the_time() -> None:
    assert endings("sleep 1; exit 75", "exit 1", 20)[0] == ProcessExit(75, False)


@pytest.mark.timeout(30)
def test_a_stopped_process_is_killed_once_another_gave_up() -> None:
    assert endings("kill -STOP $$", "sleep 0.3; exit 75") == [
        ProcessExit(-signal.SIGKILL, True), ProcessExit(75, False)
    ]  # fmt: skip


@pytest.mark.timeout(30)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_are_passed_on(number: signal.Signals) -> None:
    threading.Timer(0.7, os.kill, (os.getpid(), number)).start()
    before = signal.getsignal(number)
    script = "trap 'exit 75' TERM USR1; while true; do sleep 0.05; done"
    assert endings(script, script) == [ProcessExit(75, False)] * 2
    assert signal.getsignal(number) is before


@pytest.mark.timeout(30)
def test_after_ctrl_c_nothing_is_left() -> None:
    threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT)).start()
    script = "trap 'exit 130' INT; while true; do sleep 0.05; done"
    with pytest.raises(KeyboardInterrupt):
        endings(script, script)


@pytest.mark.timeout(30)
def test_a_process_ends_when_the_one_that_started_it_is_killed(tmp_path: Path) -> None:
    child = f"import time; from rela.distributed.ranks import end_with_launcher as e; e(); open({str(tmp_path / 'pid')!r}, 'w').write(str(__import__('os').getpid())); time.sleep(60)"  # noqa: E501
    parent = f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], env={{**os.environ, {LAUNCHER_VARIABLE!r}: str(os.getpid())}})"  # noqa: E501
    starter = subprocess.Popen([sys.executable, "-c", parent], cwd=REPOSITORY)
    end = time.monotonic() + 15
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
        assert time.monotonic() < end
        time.sleep(0.05)
    pid = int((tmp_path / "pid").read_text())
    starter.kill()
    starter.wait()
    while is_running(pid):
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("statuses", "stopped", "expected", "words"),
    [
        ((75, 65), (), 65, "process 2 of 2 ended with status 65"),
        ((65, -9), (1,), 65, "process 1 of 2 ended with status 65"),  # what NCCL does not notice
        ((1, 75), (), 1, "process 1 of 2 ended with status 1"),
        ((75, -9), (), 75, "process 2 of 2 was killed by SIGKILL (out of memory?)"),
        ((-9, 75), (0,), 75, "process 1 of 2 stopped responding"),
        ((75, 0), (), 75, "process 2 of 2 ended before the training did"),
        ((75, 75), (), 75, "status 75"),
    ],
)
def test_the_most_telling_end_is_told(
    statuses: tuple[int, ...], stopped: tuple[int, ...], expected: int, words: str
) -> None:
    failure = _failure([ProcessExit(s, i in stopped) for i, s in enumerate(statuses)], "a-run")
    assert failure is not None
    assert failure.exit_status == expected
    assert words in str(failure)
    assert "rela train --resume --name a-run" in str(failure)


def test_no_failure_is_no_failure() -> None:
    assert _failure([ProcessExit(0, False)] * 2, "a-run") is None


SLURM_STEP = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "5"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Ranks()),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, Ranks(3, 4, 1, 2)),
        ({**SLURM_STEP, "SLURM_LOCALID": "1"}, Ranks(5, 8, 1, 4, by_slurm=True)),
        # a batch script without srun is one process, whatever it has asked for
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, Ranks()),
    ],
)  # fmt: skip
def test_which_process_this_is(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: Ranks
) -> None:
    for name in [n for n in os.environ if n.startswith("SLURM_")] + ["RANK", "WORLD_SIZE"]:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert current_ranks() == expected


@pytest.mark.timeout(30)
def test_a_signal_between_two_starts_reaches_both(monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def start_and_signal(*arguments: Any, **options: Any) -> Any:
        process = start(*arguments, **options)
        if "FIRST" in options["env"]:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
            time.sleep(0.3)
        return process

    monkeypatch.setattr("subprocess.Popen", start_and_signal)
    environments = [{**os.environ, "FIRST": ""}, dict(os.environ)]
    found = run_processes(["sleep", "60"], environments, grace_seconds=20.0)
    assert [ending.was_killed for ending in found] == [False, False]
