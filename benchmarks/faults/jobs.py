"""Jobs that can be killed: forked processes that need not import torch again, and whole programs."""

import contextlib
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_REPOSITORY = Path(__file__).parents[2]
_POLL_SECONDS = 0.005
_MARK = "RELA_TRIAL"


def import_everything() -> None:
    """What the stages import when they run, once for all jobs; nothing of it is run here."""
    import faiss  # noqa: F401
    import fsspec  # noqa: F401
    import h5py  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import timm  # noqa: F401
    import torch

    import rela.data.beton.contact_sheet
    import rela.data.beton.writer
    import rela.evaluation.linear
    import rela.methods.byol
    import rela.representations.embedder
    import rela.representations.feature_files
    import rela.representations.neighbors
    import rela.representations.targets
    import rela.training.maps
    import rela.training.run  # noqa: F401

    torch.set_num_threads(1)  # so that no threads are lost by forking
    gc.freeze()


def until(is_so: Callable[[], object], seconds: float) -> bool:
    """Whether it is so in time."""
    end = time.monotonic() + seconds
    while not (found := is_so()) and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
    return bool(found)


@dataclass
class Job:
    """A forked process, first of its session; its lines, and those of its children, go to `log`."""

    pid: int
    log: Path
    status: int | None = None  # of its exit, or minus the signal that ended it; None while it runs

    @classmethod
    def start(cls, work: Callable[[], object], log: Path) -> "Job":
        """Do `work` in a process of its own; its status is the SystemExit's, 0 or 1."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _become(work, log)
        return cls(pid, log)

    @classmethod
    def rela(cls, workspace: Path, *arguments: object, log: Path) -> "Job":
        """Run `rela --workspace WORKSPACE ARGUMENTS`."""
        from rela.cli import main

        words = ["--workspace", str(workspace), *map(str, arguments)]
        return cls.start(lambda: main(words), log)

    @classmethod
    def program(cls, *command: object, log: Path, **environment: str) -> "Job":
        """Run a command, with as many threads as the forked jobs have."""
        words = [str(word) for word in command]
        variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(_REPOSITORY), **environment}
        return cls.start(lambda: os.execvpe(words[0], words, os.environ | variables), log)

    def kill(self) -> None:
        """kill -9 of the process only: those it started have to notice by themselves."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def terminate(self) -> None:
        """SIGTERM, as batch systems send it."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, seconds: float) -> int | None:
        """Its exit status, or minus the signal that ended it; None if it had to be killed."""
        if until(self._has_ended, seconds):
            return self.status
        self.kill()
        return None

    def wait_for(self, words: str, seconds: float) -> bool:
        """Whether it says `words` in time."""
        until(lambda: words in self.said() or self._has_ended(), seconds)
        return words in self.said()

    def _has_ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def left(self, patience_seconds: float = 10.0) -> list[int]:
        """Its processes that still live after so long."""
        until(lambda: not living(self._is_mine), patience_seconds)
        return living(self._is_mine)

    def kill_all(self) -> None:
        """kill -9 of whatever is left."""
        self.kill()
        for pid in self.left(0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _is_mine(self, process: Path) -> bool:
        """Forked ones are of its session; programs, which may have their own, carry its mark."""
        state, *numbers = (process / "stat").read_text().rpartition(")")[2].split()
        marks = (process / "environ").read_bytes().split(b"\0")
        is_mine = int(numbers[2]) == self.pid or f"{_MARK}={self.pid}".encode() in marks
        return is_mine and state not in "ZX"

    def said(self) -> str:
        """Everything on stdout and stderr so far, of all processes."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def last_line(self) -> str:
        """What it said last."""
        lines = self.said().strip().splitlines()
        return lines[-1] if lines else "(nothing)"


def living(is_wanted: Callable[[Path], bool]) -> list[int]:
    """Numbers of the processes whose folder in /proc `is_wanted`; those that end meanwhile are not."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if is_wanted(entry):
                    found.append(int(entry.name))
    return found


def _become(work: Callable[[], object], log: Path) -> None:
    status = 1
    try:
        os.setsid()
        os.environ[_MARK] = str(os.getpid())
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        work()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
