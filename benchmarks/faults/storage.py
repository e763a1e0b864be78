"""Full disks and I/O errors at any write: one line, status 74, nothing half done, and it goes on later.

Full disks are file systems in memory of a few megabytes, so this needs root; errors of single system calls
come from strace.
"""

import contextlib
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from benchmarks.faults.jobs import Job
from benchmarks.faults.staged import (
    LIMIT_SECONDS,
    Start,
    copy_of,
    each_stage,
    finish,
    run_again,
    words,
)
from benchmarks.faults.tally import Tally
from benchmarks.faults.workspaces import content_of, difference, unsound_artifacts

_TRIALS, _INJECTIONS, _DRAWS = 40, 15, 5
_PLENTY_BYTES = 2**30
_STORAGE_STATUS = 74
_CALLS = "write,pwrite64,ftruncate,fallocate,fsync,fdatasync,rename,mkdir"
_ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EROFS")
_LAUNCH = "import sys; from cli import main; main(sys.argv[1:])"


def run(trials: int, scratch: Path, only: Collection[str]) -> list[Tally]:
    tallies = []
    for stage, start, before in each_stage(scratch, only):
        full = Tally(f"{stage}: a full disk, then room")
        refused = Tally(f"{stage}: one system call fails, then run again")
        with _disk(scratch / "disk") as disk:
            _refill(disk, before)
            used = _used_bytes(disk)
            finish(start, disk / "workspace", scratch)
            needed = _used_bytes(disk) - used
            expected = content_of(disk / "workspace")
            draw = random.Random(stage)
            for _ in range(trials or _TRIALS):
                share = draw.uniform(0, 1.1)
                _refill(disk, before)
                full.count(_with_room(start, disk, int(share * needed), scratch, expected))
        if stage != "targets":  # which is no command of its own
            written = [str(word) for word in words(scratch / "digits")[stage]]
            calls = _calls(written, before, scratch)
            for number in range(min(trials or _INJECTIONS, _INJECTIONS)):
                error = _ERRORS[number % len(_ERRORS)]
                refused.count(
                    _injected(written, start, before, calls, error, draw, scratch, expected)
                )
        new = [full, *([refused] if refused.total else [])]
        for tally in new:
            print(tally.lines()[0], file=sys.stderr, flush=True)
        tallies += new
    return tallies


def _with_room(
    start: Start, disk: Path, room_bytes: int, scratch: Path, expected: dict[str, str]
) -> str:
    """One trial with `room_bytes` more than what is there; what went wrong, or nothing."""
    workspace, log = disk / "workspace", scratch / "full.log"
    log.unlink(missing_ok=True)
    what = f"{room_bytes / 2**20:.2f} MB of room"
    _resize(disk, _used_bytes(disk) + room_bytes)
    job = start(workspace, log)
    status = job.wait(LIMIT_SECONDS)
    problem = _judge(status, log, job)
    problem = problem or unsound_artifacts(workspace)
    _resize(disk, _PLENTY_BYTES)
    problem = problem or _afterwards(status, start, workspace, log, expected)
    return f"{what}: {problem}" if problem else ""


def _afterwards(
    status: int, start: Start, workspace: Path, log: Path, expected: dict[str, str]
) -> str:
    """Run again what failed; whether there is what there should be, in words if not."""
    if status:
        return run_again(start, workspace, log, expected)
    return difference(content_of(workspace), expected)


def _injected(
    written: list[str], start: Start, before: Path, calls: list[tuple[str, int]], error: str,
    draw: random.Random, scratch: Path, expected: dict[str, str],
) -> str:  # fmt: skip
    """One of the calls that touch the workspace fails with `error`.

    How many there are differs a little from call to call; one that does not come, or is another, is no
    trial.
    """
    log = scratch / "refused.log"
    for _ in range(_DRAWS):
        workspace = copy_of(before, scratch / "refused")
        log.unlink(missing_ok=True)
        call, number = draw.choice(calls)
        what = f"{call} {number} fails with {error}"
        status = _traced(
            written, workspace, log, scratch, "-e", f"inject={call}:error={error}:when={number}"
        )
        if _is_of(workspace, scratch / "strace.log"):
            problem = _judge(status, log, Job(0, log, 0.0)) or unsound_artifacts(workspace)
            problem = problem or _afterwards(status, start, workspace, log, expected)
            return f"{what}: {problem}" if problem else ""
    return f"none of {_DRAWS} calls came, {what} the last"


def _is_of(workspace: Path, trace: Path) -> bool:
    """Whether calls failed, and all that did touch the workspace, not what is said about them."""
    lines = trace.read_text(errors="replace").splitlines()
    failed = [line for line in lines if "(INJECTED)" in line]
    return bool(failed) and all(str(workspace) in line for line in failed)


def _calls(written: list[str], before: Path, scratch: Path) -> list[tuple[str, int]]:
    """System calls of the command's main thread on files of the workspace: name, and how many before."""
    workspace = copy_of(before, scratch / "refused")
    _traced(written, workspace, scratch / "refused.log", scratch)
    lines = (scratch / "strace.log").read_text(errors="replace").splitlines()
    # the first line is execve, by the main thread
    main, count, found = lines[0].split()[0], Counter[str](), []
    for line in lines:
        call = re.match(rf"{main} +([a-z0-9]+)\(", line)
        if call:
            count[call[1]] += 1
            if str(workspace) in line and call[1] != "execve":
                found.append((call[1], count[call[1]]))
    return found


def _traced(written: list[str], workspace: Path, log: Path, scratch: Path, *options: str) -> int:
    """Run the command under strace, with its options; the exit status."""
    # as many threads as the forked jobs have, for the same sums
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [
        "strace", "-f", "-y", "--seccomp-bpf", "-o", str(scratch / "strace.log"),
        "-e", f"trace=execve,{_CALLS}", *options,
        sys.executable, "-c", _LAUNCH, "--workspace", str(workspace), *written,
    ]  # fmt: skip
    with open(log, "w") as file:
        return subprocess.run(
            command, stdout=file, stderr=file, env=environment, timeout=300, check=False
        ).returncode


def _judge(status: int, log: Path, job: Job) -> str:
    """Whether a job ended as it should: well, or with a line of explanation and status 74."""
    if status == 0:
        return ""
    if status != _STORAGE_STATUS:
        return f"status {status}: {job.last_line()}"
    if "Traceback" in log.read_text(errors="replace"):
        return "a traceback"
    return "" if re.match(r"rela: .+", job.last_line()) else f"said {job.last_line()}"


@contextlib.contextmanager
def _disk(place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_PLENTY_BYTES}", "tmpfs", str(place)], check=True
    )
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _refill(disk: Path, before: Path) -> None:
    _resize(disk, _PLENTY_BYTES)
    shutil.rmtree(disk / "workspace", ignore_errors=True)
    shutil.copytree(before, disk / "workspace")


def _resize(disk: Path, num_bytes: int) -> None:
    """To whole pages, and at least one more than is used: a size of 0 would mean no limit."""
    pages = -(-num_bytes // 4096) + 1
    subprocess.run(["mount", "-o", f"remount,size={pages * 4096}", "tmpfs", str(disk)], check=True)


def _used_bytes(disk: Path) -> int:
    return shutil.disk_usage(disk).used
