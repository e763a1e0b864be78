"""Whatever happens to one process, the others end in time, with a reason, and none is left."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.faults.networks import FIRST, Machine, two_machines
from benchmarks.faults.rank_jobs import (
    SMALL_RUN,
    STARTS,
    RankJob,
    losses_of,
    prepared_workspace,
    rela,
    write_pictures,
)
from benchmarks.faults.tally import Tally
from rela.distributed.ranks import free_port

_LOST = "another process of this training ended or cannot be reached"
_KINDS = ("kill", "stop", "exit", "raise", "loader")
_RANK_TIMEOUT_SECONDS = 30
_START_SECONDS = 240.0  # of a training on a busy machine
_LIMIT_SECONDS = _START_SECONDS + 3 * _RANK_TIMEOUT_SECONDS
_PATIENCE_SECONDS = 40.0  # torchrun gives a stopped process 30 s
_EPOCHS = 6
_numbers = itertools.count(int(time.time()) % 1_000_000)


def run(trials: int, scratch: Path) -> list[Tally]:
    """Faults of every kind in either process of two, by either start; `trials` of them at most."""
    workspace = prepared_workspace(scratch)
    cases = [(kind, rank, how) for rank in (1, 0) for how in STARTS for kind in _KINDS]
    ends, empty, reasons = (Tally(_what(words)) for words in _PROMISES)
    for kind, rank, how in cases[: trials or len(cases)]:
        _break_one(workspace, kind, rank, how, ends, empty, reasons)
    return [
        ends,
        empty,
        reasons,
        _launcher_killed(workspace),
        _resumed(workspace),
        _convert_worker_killed(scratch),
        *_two_machines(workspace),
    ]


_PROMISES = (
    "the job ends with a failure, not by itself being stopped from outside",
    "no process is left behind",
    "a line tells the cause",
)


def _what(words: str) -> str:
    return f"a process of two raises, exits, is killed or stopped, in training: {words}"


def _arguments() -> list[str]:
    """A run of its own: another seed."""
    number = str(next(_numbers))
    timeout = str(_RANK_TIMEOUT_SECONDS / 60)
    return [
        "train", *SMALL_RUN, "--epochs", str(_EPOCHS), "--seed", number, "--name", f"run{number}",
        "--rank-timeout", timeout,
    ]  # fmt: skip


def _break_one(
    workspace: Path, kind: str, rank: int, how: str, ends: Tally, empty: Tally, reasons: Tally
) -> None:
    case = f"{kind} in process {rank + 1}, {how}"
    job = RankJob.start(workspace, how, _arguments(), f"{kind}:{rank}:5")
    start = time.monotonic()
    status = job.wait(_LIMIT_SECONDS)
    print(f"  {case}: status {status} after {time.monotonic() - start:.0f} s", file=sys.stderr)
    expected = 1 if how == "torchrun" or kind in ("raise", "loader") else 75
    ends.count("" if status == expected else f"{case}: status {status}, expected {expected}")
    left = job.alive(_PATIENCE_SECONDS)
    empty.count(f"{case}: {len(left)} processes" if left else "")
    told = any(_LOST in line for line in job.messages()) and any(
        word in job.said()
        for word in ("did not answer", "was killed", "ended", "a fault on purpose")
    )
    reasons.count("" if told else f"{case}: {job.messages() or job.said()[-300:]}")
    job.kill_all()


def _launcher_killed(workspace: Path) -> Tally:
    tally = Tally("what started the processes is killed: they end, too")
    for how in STARTS:
        job = RankJob.start(workspace, how, _arguments(), "slow:0:0")
        began = job.wait_for("epoch 1/", _START_SECONDS)
        os.kill(job.process.pid, signal.SIGKILL)
        job.process.wait()
        left = job.alive(10.0)
        problem = "" if began else "did not begin"
        tally.count(
            f"{how}: {problem or f'{len(left)} processes are left'}" if left or problem else ""
        )
        job.kill_all()
    return tally


def _resumed(workspace: Path) -> Tally:
    """A run that lost a process goes on, on one, to losses of all epochs."""
    tally = Tally("after a process was killed, `--resume --devices 1` finishes the run")
    arguments = [*_arguments(), "--checkpoint-minutes", "0"]
    job = RankJob.start(workspace, STARTS[0], arguments, "kill:1:10")
    job.wait(_LIMIT_SECONDS)
    job.kill_all()
    name = arguments[arguments.index("--name") + 1]
    try:
        rela(workspace, "train", "--resume", "--name", name, "--devices", "1")
        losses = losses_of(workspace / "runs" / name)
        tally.count("" if len(losses) == _EPOCHS else f"{len(losses)} epochs of {_EPOCHS}")
    except RuntimeError as error:
        tally.count(str(error))
    return tally


def _convert_worker_killed(scratch: Path) -> Tally:
    tally = Tally("a worker of `rela convert` is killed: it ends in 20 s, not well, and says so")
    pictures = write_pictures(scratch / "large", count=300, side=600)
    program = Path(__file__).parents[2] / "cli.py"
    command = [sys.executable, str(program), "--workspace", str(scratch / "convert"), "convert"]
    options = ["--workers", "2", "--name", f"c{next(_numbers)}", "--write-mode", "jpg"]
    for _ in range(2):
        with subprocess.Popen(
            [*command, str(pictures), *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as job:  # fmt: skip
            worker = _wait_for_worker(job.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
            try:
                said = job.communicate(timeout=20)[1]
            except subprocess.TimeoutExpired:
                job.kill()
                tally.count("did not end")
                continue
            last = said.strip().splitlines()[-1] if said.strip() else ""
            good = (
                job.returncode in (65, 75)
                and "a worker process died" in last
                and last.startswith("rela: ")
            )
            tally.count("" if good else f"status {job.returncode}: {last}")
    return tally


def _wait_for_worker(parent: int) -> int:
    """A process that `parent` spawned for work."""
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    time.sleep(1.0)
                    return int(child)
        time.sleep(0.02)
    raise RuntimeError("no worker was started")


def _two_machines(workspace: Path) -> list[Tally]:
    """The same losses as on one machine; and both sides end when the cable is cut."""
    same = Tally(
        "two machines (namespaces, torchrun): the losses of one machine with two processes"
    )
    cut = Tally("the cable between two machines is cut: both sides end in time, and say so")
    try:
        with two_machines() as machines:
            arguments = _arguments()
            jobs = _start_on(machines, workspace, arguments, "")
            statuses = [job.wait(_LIMIT_SECONDS) for job in jobs]
            found = losses_of(workspace / "runs" / arguments[-3])
            here = [*arguments]
            here[-3] += "here"
            rela(workspace, *here, "--devices", "2")
            expected = losses_of(workspace / "runs" / here[-3])
            good = statuses == [0, 0] and found == expected
            same.count("" if good else f"statuses {statuses}, losses {found}, expected {expected}")

            jobs = _start_on(machines, workspace, _arguments(), "slow:0:0")
            began = jobs[0].wait_for("epoch 1/", _START_SECONDS)
            machines[0].cut()
            start = time.monotonic()
            statuses = [job.wait(_LIMIT_SECONDS) for job in jobs]
            took = time.monotonic() - start
            print(f"  cable cut: statuses {statuses} after {took:.0f} s", file=sys.stderr)
            told = [any(_LOST in line for line in job.messages()) for job in jobs]
            left = [pid for job in jobs for pid in job.alive(_PATIENCE_SECONDS)]
            good = began and all(statuses) and all(told) and not left
            problem = f"began {began}, statuses {statuses}, told {told}, left {len(left)}"
            cut.count("" if good else problem + "".join(job.said()[-800:] for job in jobs))
            for job in jobs:
                job.kill_all()
    except OSError as error:
        print(f"  two machines: left out, {error}", file=sys.stderr)
    return [same, cut]


def _start_on(
    machines: tuple[Machine, Machine], workspace: Path, arguments: list[str], fault: str
) -> list[RankJob]:
    port = free_port()
    return [
        RankJob.start(
            workspace,
            f"--nnodes 2 --node-rank {node} --nproc-per-node 1 --master-addr {FIRST} "
            f"--master-port {port}",
            arguments,
            fault,
            machine.enter,
        )
        for node, machine in enumerate(machines)
    ]
