"""Whatever happens to one process, the others end in time, with a reason, and none is left."""

import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults import Tally
from benchmarks.faults.jobs import Job, until
from benchmarks.faults.networks import FIRST, Machine, two_machines
from benchmarks.faults.ranks import STARTS, losses_of, prepared_workspace, rela, start, training
from benchmarks.faults.workspaces import write_digits
from rela.distributed.ranks import free_port

_LOST = "another process of this training ended or cannot be reached"
_CAUSES = ("did not answer", "was killed", "ended", "a fault on purpose")
_KINDS = ("kill", "stop", "exit", "raise", "loader")
_RANK_TIMEOUT_SECONDS = 30
_START_SECONDS = 240.0  # of a training on a busy machine
_LIMIT_SECONDS = _START_SECONDS + 3 * _RANK_TIMEOUT_SECONDS
_PATIENCE_SECONDS = 40.0  # torchrun gives a stopped process 30 s
_EPOCHS = 6
_numbers = itertools.count(int(time.time()) % 1_000_000)


def hangs(trials: int, scratch: Path) -> Iterator[Tally]:
    """Faults of every kind in either process of two, by either start; `trials` of them at most."""
    workspace = prepared_workspace(scratch)
    cases = [(kind, rank, how) for rank in (1, 0) for how in STARTS for kind in _KINDS]
    what = "a process of two raises, exits, is killed or stopped, in training: "
    ends, empty, reasons = tallies = (
        Tally(f"{what}the job ends with a failure, not by itself being stopped from outside"),
        Tally(f"{what}no process is left behind"),
        Tally(f"{what}a line tells the cause"),
    )
    for kind, rank, how in cases[: trials or len(cases)]:
        case = f"{kind} in process {rank + 1}, {how}"
        job = start(workspace, how, *_training()[1], fault=f"{kind}:{rank}:5")
        status = _timed(case, [job])[0]
        expected = 1 if how == "torchrun" or kind in ("raise", "loader") else 75
        ends.count("" if status == expected else f"{case}: status {status}, expected {expected}")
        left = job.left(_PATIENCE_SECONDS)
        empty.count(f"{case}: {len(left)} processes" if left else "")
        told = _tells_of_loss(job) and any(cause in job.said() for cause in _CAUSES)
        reasons.count("" if told else f"{case}: {job.said()[-300:]}")
        job.kill_all()
    yield from tallies
    yield _launcher_killed(workspace)
    yield _resumed(workspace)
    yield _convert_worker_killed(scratch)
    yield from _two_machines(workspace)


def _training() -> tuple[str, list[object]]:
    """A run of its own: another seed."""
    return training(next(_numbers), _EPOCHS, "--rank-timeout", _RANK_TIMEOUT_SECONDS / 60)


def _timed(case: str, jobs: list[Job]) -> list[int | None]:
    begun = time.monotonic()
    statuses = [job.wait(_LIMIT_SECONDS) for job in jobs]
    print(f"  {case}: {statuses} after {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return statuses


def _tells_of_loss(job: Job) -> bool:
    """Whether a line in which the command line explains an end names the loss of a process."""
    lines = job.said().splitlines()
    return any(_LOST in line for line in lines if line.startswith(("rela:", "rela (")))


def _launcher_killed(workspace: Path) -> Tally:
    tally = Tally("what started the processes is killed: they end, too")
    for how in STARTS:
        job = start(workspace, how, *_training()[1], fault="slow:0:0")
        began = job.wait_for("epoch 1/", _START_SECONDS)
        job.kill()
        left = job.left()
        tally.count("" if began and not left else f"{how}: began {began}, {len(left)} are left")
        job.kill_all()
    return tally


def _resumed(workspace: Path) -> Tally:
    """A run that lost a process goes on, on one, to losses of all epochs."""
    tally = Tally("after a process was killed, `--resume --devices 1` finishes the run")
    name, train = _training()
    job = start(workspace, STARTS[0], *train, "--checkpoint-minutes", 0, fault="kill:1:10")
    job.wait(_LIMIT_SECONDS)
    job.kill_all()
    try:
        rela(workspace, "train", "--resume", "--name", name, "--devices", 1)
        count = len(losses_of(workspace, name))
        tally.count("" if count == _EPOCHS else f"{count} epochs of {_EPOCHS}")
    except RuntimeError as error:
        tally.count(str(error))
    return tally


def _convert_worker_killed(scratch: Path) -> Tally:
    tally = Tally("a worker of `rela convert` is killed: it ends in 20 s, not well, and says so")
    pictures = write_digits(scratch / "large", 300, side=600)
    options = ("--workers", 2, "--write-mode", "jpg", "--name")
    for _ in range(2):
        job = start(scratch / "convert", "", "convert", pictures, *options, f"c{next(_numbers)}")
        worker = _worker_of(job)
        time.sleep(1.0)
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
        good = job.wait(20) in (65, 75)
        last = job.last_line()
        good = good and last.startswith("rela: ") and "a worker process died" in last
        tally.count("" if good else f"status {job.status}: {last}")
        job.kill_all()
    return tally


def _worker_of(job: Job) -> int:
    """A process that the job spawned for work."""
    found = list[int]()

    def look() -> list[int]:
        for child in Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
        return found

    if not until(look, _START_SECONDS):
        raise RuntimeError("no worker was started")
    return found[0]


def _two_machines(workspace: Path) -> Iterator[Tally]:
    """The same losses as on one machine; and both sides end when the cable is cut."""
    same = Tally(
        "two machines (namespaces, torchrun): the losses of one machine with two processes"
    )
    cut = Tally("the cable between two machines is cut: both sides end in time, and say so")
    try:
        with two_machines() as machines:
            name, train = _training()
            statuses = _timed("two machines", _start_on(machines, workspace, train))
            rela(workspace, *train[:-1], f"{name}-here", "--devices", 2)
            found, expected = (losses_of(workspace, each) for each in (name, f"{name}-here"))
            good = statuses == [0, 0] and found == expected
            same.count("" if good else f"statuses {statuses}, losses {found}, expected {expected}")

            jobs = _start_on(machines, workspace, _training()[1], "slow:0:0")
            began = jobs[0].wait_for("epoch 1/", _START_SECONDS)
            machines[0].cut()
            statuses = _timed("cable cut", jobs)
            told = [_tells_of_loss(job) for job in jobs]
            left = [pid for job in jobs for pid in job.left(_PATIENCE_SECONDS)]
            good = began and all(statuses) and all(told) and not left
            problem = f"began {began}, statuses {statuses}, told {told}, left {len(left)}"
            cut.count("" if good else problem + "".join(job.said()[-800:] for job in jobs))
            for job in jobs:
                job.kill_all()
    except OSError as error:
        print(f"  two machines: left out, {error}", file=sys.stderr)
    yield from (same, cut)


def _start_on(
    machines: tuple[Machine, Machine], workspace: Path, arguments: list[object], fault: str = ""
) -> list[Job]:
    port = free_port()
    return [
        start(
            workspace,
            f"--nnodes 2 --node-rank {node} --nproc-per-node 1 --master-addr {FIRST} "
            f"--master-port {port}",
            *arguments,
            fault=fault,
            before=machine.enter,
        )
        for node, machine in enumerate(machines)
    ]
