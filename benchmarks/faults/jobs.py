"""Jobs that can be killed: commands of rela in forked processes that need not import torch again."""

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

from benchmarks.faults.processes import living

_POLL_SECONDS = 0.005
TIMED_OUT = -1000


def import_everything() -> None:
    """What the stages import when they run, once for all jobs; nothing of it is run here."""
    import h5py  # noqa: F401
    import torch

    import rela.data.beton.writer
    import rela.evaluation.linear
    import rela.methods.byol
    import rela.representations.embedder
    import rela.representations.targets
    import rela.training.run  # noqa: F401

    torch.set_num_threads(1)  # so that no threads are lost by forking
    gc.freeze()


@dataclass
class Job:
    """A forked process, first of its session; its lines go to `log`."""

    pid: int
    log: Path
    started: float

    @classmethod
    def start(cls, work: Callable[[], object], log: Path) -> "Job":
        """Do `work` in a process of its own; its status is the SystemExit's, 0 or 1."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _become(work, log)
        return cls(pid, log, time.perf_counter())

    @classmethod
    def rela(cls, workspace: Path, *arguments: object, log: Path) -> "Job":
        """Run `rela --workspace WORKSPACE ARGUMENTS`."""
        from rela.cli import main

        words = ["--workspace", str(workspace), *map(str, arguments)]
        return cls.start(lambda: main(words), log)

    def kill(self) -> None:
        """kill -9 of the process alone: those it started have to notice by themselves."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> int:
        """Its exit status, or minus the signal that ended it; TIMED_OUT if it had to be killed."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(_POLL_SECONDS)
        self.kill()
        os.waitpid(self.pid, 0)
        return TIMED_OUT

    def left_behind(self, patience_seconds: float = 10.0) -> list[int]:
        """Processes of its session that still live some seconds after it ended."""
        end = time.perf_counter() + patience_seconds
        while (alive := living(self._is_mine)) and time.perf_counter() < end:
            time.sleep(_POLL_SECONDS)
        return alive

    def _is_mine(self, process: Path) -> bool:
        state, *numbers = (process / "stat").read_text().rpartition(")")[2].split()
        return int(numbers[2]) == self.pid and state not in "ZX"

    def last_line(self) -> str:
        """What it said last."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "(nothing)"


def _become(work: Callable[[], object], log: Path) -> None:
    status = 1
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
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
