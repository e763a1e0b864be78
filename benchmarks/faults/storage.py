"""Full disks and I/O errors at any write: one line, status 74, nothing half done, and it goes on later.

Full disks are file systems in memory of a few megabytes, so this needs root; errors of single system calls
come from strace.
"""

import contextlib
import functools
import itertools
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from benchmarks.faults import Tally
from benchmarks.faults.jobs import Job
from benchmarks.faults.stages import LIMIT_SECONDS, OUT, Stage, copy_of, each_stage
from rela.pipeline.files import directory_bytes

_TRIALS, _INJECTIONS, _DRAWS = 40, 15, 10
_PLENTY_BYTES = 2**30
_STORAGE_STATUS = 74
_CALLS = "write,pwrite64,ftruncate,fallocate,fsync,fdatasync,rename,mkdir"
_ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EROFS")
_NOT_CALLED = "no call of the workspace failed"


def storage(trials: int, scratch: Path, only: Collection[str]) -> Iterator[Tally]:
    """Every stage with too little room; every command with one system call that fails."""
    for stage in each_stage(scratch, only):
        draw = random.Random(stage.name)
        full = Tally(f"{stage.name}: a full disk, then room")
        with _disk(scratch / "disk") as disk:
            after = stage.undisturbed[0]
            needed = max(  # what is replaced is there until it is
                _used_bytes(disk, after) - _used_bytes(disk, stage.before),
                directory_bytes(after / OUT),
            )
            for _ in range(trials or _TRIALS):
                full.count(_with_room(stage, disk, int(draw.uniform(0, 1.1) * needed)))
        yield full
        if calls := _calls(stage):
            refused = Tally(f"{stage.name}: one system call fails, then run again")
            errors = itertools.cycle(_ERRORS)
            for error in itertools.islice(errors, min(trials or _INJECTIONS, _INJECTIONS)):
                refused.count(_with_error(stage, error, calls, draw))
            yield refused


def _with_room(stage: Stage, disk: Path, room_bytes: int) -> str:
    """One trial with `room_bytes` more than what is there; what went wrong, or nothing."""

    def fill(workspace: Path) -> str:
        _resize(disk, shutil.disk_usage(disk).used + room_bytes)
        job = stage.start(workspace)
        job.wait(LIMIT_SECONDS)
        problem = _misbehaviour(stage, job, workspace)
        _resize(disk, _PLENTY_BYTES)
        return problem

    return stage.trial(f"{room_bytes / 2**20:.2f} MB of room", fill, disk / "workspace")


def _with_error(stage: Stage, error: str, calls: list[tuple[str, int]], draw: random.Random) -> str:
    """One of the calls that touch the workspace fails with `error`; what went wrong, or nothing.

    How many there are differs a little from call to call; one that does not come, or is another, is no
    trial.
    """
    problem = ""
    for _ in range(_DRAWS):
        call, number = draw.choice(calls)
        option = f"inject={call}:error={error}:when={number}"
        problem = stage.trial(option, functools.partial(_refuse, stage, option))
        if not problem.endswith(_NOT_CALLED):
            break
    return problem


def _refuse(stage: Stage, option: str, workspace: Path) -> str:
    job, lines = _traced(stage, workspace, "-e", option)
    failed = [line for line in lines if "(INJECTED)" in line]
    if not failed or not all(str(workspace) in line for line in failed):
        return _NOT_CALLED
    return _misbehaviour(stage, job, workspace)


def _calls(stage: Stage) -> list[tuple[str, int]]:
    """System calls of the command's main thread on files of the workspace: name, and how many before."""
    workspace = copy_of(stage.before, stage.scratch / "disturbed")
    lines = _traced(stage, workspace)[1]
    # the first line is execve, by the main thread
    main, count, found = lines[0].split()[0], Counter[str](), []
    for line in lines:
        call = re.match(rf"{main} +([a-z0-9]+)\(", line)
        if call:
            count[call[1]] += 1
            if str(workspace) in line and call[1] != "execve":
                found.append((call[1], count[call[1]]))
    return found


def _traced(stage: Stage, workspace: Path, *options: str) -> tuple[Job, list[str]]:
    """The command under strace, ended, and the lines of the trace."""
    trace = stage.scratch / "strace.log"
    job = Job.program(
        "strace", "-f", "-y", "--seccomp-bpf", "-o", trace, "-e", f"trace=execve,{_CALLS}", *options,
        sys.executable, "-m", "benchmarks.faults.stages", stage.scratch, stage.name, workspace,
        log=stage.scratch / "log",
    )  # fmt: skip
    job.wait(2 * LIMIT_SECONDS)
    job.kill_all()  # the command outlives strace
    return job, trace.read_text(errors="replace").splitlines()


def _misbehaviour(stage: Stage, job: Job, workspace: Path) -> str:
    """How a job did not end as it should: well, or with a line of explanation and status 74."""
    if job.status == 0:
        return stage.misfit(workspace)
    if job.status != _STORAGE_STATUS:
        return f"status {job.status}: {job.last_line()}"
    if "Traceback" in job.said():
        return "a traceback"
    return "" if re.match(r"rela: .+", job.last_line()) else f"said {job.last_line()}"


@contextlib.contextmanager
def _disk(place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    options = f"size={_PLENTY_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def _resize(disk: Path, num_bytes: int) -> None:
    """To whole pages, and at least one more than is used: a size of 0 would mean no limit."""
    pages = -(-num_bytes // 4096) + 1
    subprocess.run(["mount", "-o", f"remount,size={pages * 4096}", "tmpfs", disk], check=True)


def _used_bytes(disk: Path, workspace: Path) -> int:
    """By a workspace on this disk."""
    copy_of(workspace, disk / "workspace")
    return shutil.disk_usage(disk).used
