"""Reading files that may crash the reader: in a forked process, with a limit on time and memory."""

import json
import os
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.faults.tally import Tally
from rela.errors import RelaError
from rela.pipeline.errors import PipelineError

_LIMIT_SECONDS = 60
_SPARE_BYTES = 64 << 20
_SPARE_ADDRESSES = 8 << 30


@dataclass(frozen=True)
class Case:
    """Prepare something and read it; `read` returns a problem in words, or nothing."""

    what: str
    read: Callable[[], str | None]
    num_bytes: int = 0  # of the file, which decides how much memory is fair


def try_all(tally: Tally, cases: Sequence[Case], log: Path) -> None:
    """Count every case: read, or refused in one line; not crashed, hung, or bloated."""
    first = 0
    while first < len(cases):
        log.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            _read_all(cases[first:], log)
        _, status = os.waitpid(pid, 0)
        lines = log.read_text().splitlines() if log.exists() else []
        for line in lines:
            tally.count(json.loads(line))
        first += len(lines)
        if status != 0 and first < len(cases):
            how = os.waitstatus_to_exitcode(status)
            tally.count(f"{cases[first].what}: the process ended with {how}")
            first += 1


def _read_all(cases: Sequence[Case], log: Path) -> None:
    status = 1
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        addresses = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = addresses + _SPARE_ADDRESSES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        with open(log, "w") as file:
            for case in cases:
                signal.alarm(_LIMIT_SECONDS)
                file.write(json.dumps(_outcome(case)) + "\n")
                file.flush()
        status = 0
    finally:
        os._exit(status)


def _outcome(case: Case) -> str:
    before = _peak_bytes(reset=True)
    try:
        problem = case.read() or ""
    except (RelaError, PipelineError, click.ClickException) as error:
        problem = "" if "\n" not in str(error) else f"{case.what}: more than a line: {error}"
    except BaseException as error:
        problem = f"{case.what}: {type(error).__name__}: {error}"[:300]
    else:
        problem = f"{case.what}: {problem}" if problem else ""
    grown = _peak_bytes() - before
    if grown > _SPARE_BYTES + 4 * case.num_bytes:
        problem = (
            problem or f"{case.what}: took {grown >> 20} MiB for a file of {case.num_bytes:,} bytes"
        )
    return problem


def _peak_bytes(reset: bool = False) -> int:
    """The most memory this process had resident, since it was reset to what it has now."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")
