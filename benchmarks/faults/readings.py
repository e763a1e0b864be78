"""Reading files that may crash the reader or lead elsewhere: in a forked process, with limits, watched."""

import ctypes
import functools
import json
import os
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.faults import Tally
from benchmarks.faults.jobs import Job
from rela.errors import RelaError
from rela.pipeline.errors import PipelineError

_LIMIT_SECONDS = 60
_SPARE_BYTES = 64 << 20
_SPARE_ADDRESSES = 8 << 30
_IN_ACCESS, _IN_OPEN = 0x1, 0x20


@dataclass(frozen=True)
class Case:
    """Prepare something and read it; `read` returns a problem in words, or nothing."""

    what: str
    read: Callable[[], str | None]
    num_bytes: int = 0  # of the file, which decides how much memory is fair


def try_all(tally: Tally, cases: Sequence[Case], log: Path) -> None:
    """Count every case: read, or refused in one line; not crashed, hung, or bloated."""
    while cases:
        log.write_text("")
        job = Job.start(functools.partial(_read_all, cases, log), Path(os.devnull))
        job.wait(_LIMIT_SECONDS * len(cases))
        lines = log.read_text().splitlines()
        for line in lines:
            tally.count(json.loads(line))
        cases = cases[len(lines) :]
        if job.status and cases:
            tally.count(f"{cases[0].what}: the process ended with {job.status}")
            cases = cases[1:]


def _read_all(cases: Sequence[Case], log: Path) -> None:
    addresses = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = addresses + _SPARE_ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with open(log, "w") as file:
        for case in cases:
            signal.alarm(_LIMIT_SECONDS)
            file.write(json.dumps(_outcome(case)) + "\n")
            file.flush()


def _outcome(case: Case) -> str:
    Path("/proc/self/clear_refs").write_text("5")  # the most memory is from now on what it is now
    before = _peak_bytes()
    try:
        problem = case.read() or ""
    except (RelaError, PipelineError, click.ClickException) as error:
        problem = "" if "\n" not in str(error) else f"more than a line: {error}"
    except BaseException as error:
        problem = f"{type(error).__name__}: {error}"[:300]
    grown = _peak_bytes() - before
    if not problem and grown > _SPARE_BYTES + 4 * case.num_bytes:
        problem = f"took {grown >> 20} MiB for a file of {case.num_bytes:,} bytes"
    return f"{case.what}: {problem}" if problem else ""


def _peak_bytes() -> int:
    """The most memory this process had resident."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


class Watched:
    """A secret that must not be opened or read; the kernel (inotify) tells if it was."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(b"secret" * 1000)
        self.path = path
        library = ctypes.CDLL(None, use_errno=True)
        self._events = library.inotify_init1(os.O_NONBLOCK)
        if library.inotify_add_watch(self._events, os.fsencode(path), _IN_ACCESS | _IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), "inotify", str(path))

    def was_touched(self) -> bool:
        """Since the last time this was asked."""
        try:
            return bool(os.read(self._events, 1 << 16))
        except BlockingIOError:
            return False
