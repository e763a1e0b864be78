"""Trainings in several processes, started in every way there is, with a fault in one of them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.faults.processes import living
from rela.distributed.ranks import free_port

FAULTY = Path(__file__).with_name("faulty.py")
SMALL_RUN = [
    "--prior", "random", "--model", "squeezenet1_1", "--image-size", "32", "--batch-size", "8",
    "--handover", "0.5",
]  # fmt: skip
STARTS = ("rela train --devices 2", "torchrun")
_MARK = "RELA_TRIAL"
_POLL_SECONDS = 0.05


@dataclass
class RankJob:
    """A job of several processes; all of them carry a mark by which they are found again."""

    process: "subprocess.Popen[bytes]"
    log: Path
    mark: str

    @classmethod
    def start(
        cls,
        workspace: Path,
        how: str,
        arguments: list[str],
        fault: str = "",
        before: list[str] | None = None,
    ) -> "RankJob":
        """`rela ARGUMENTS` on two processes, by one of STARTS; or with the words in `how` for torchrun.

        "one process" trains on one device, "plain" adds nothing to the arguments.
        """
        mark = uuid.uuid4().hex
        torchrun = [sys.executable, "-m", "torch.distributed.run"]
        rela = [str(FAULTY), "--workspace", str(workspace), *arguments]
        if how == STARTS[0]:
            command = [sys.executable, *rela, "--devices", "2"]
        elif how == "one process":
            command = [sys.executable, *rela, "--devices", "1"]
        elif how == "torchrun":
            port = str(free_port())
            command = [*torchrun, "--nproc-per-node", "2", "--master-port", port, *rela]
        elif how == "plain":
            command = [sys.executable, *rela]
        else:
            command = [*torchrun, *how.split(), *rela]
        log = Path(tempfile.mkdtemp(prefix="rela-ranks-")) / "log"
        environment = {**os.environ, _MARK: mark, "OMP_NUM_THREADS": "1"}
        if fault:
            environment["RELA_FAULT"] = fault
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [*(before or []), *command], env=environment, stdout=file, stderr=file,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        return cls(process, log, mark)

    def wait(self, seconds: float) -> int | None:
        """Its exit status; None if it had to be killed after so many seconds."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            return None

    def wait_for(self, words: str, seconds: float) -> bool:
        """Whether it says `words` in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            if words in self.said():
                return True
            time.sleep(_POLL_SECONDS)
        return words in self.said()

    def said(self) -> str:
        """Everything on stdout and stderr so far, of all processes."""
        return self.log.read_text(errors="replace")

    def messages(self) -> list[str]:
        """Lines with which the command line explains an end."""
        return [line for line in self.said().splitlines() if line.startswith(("rela:", "rela ("))]

    def alive(self, patience_seconds: float = 0.0) -> list[int]:
        """Processes of the job that still live after so long."""
        end = time.monotonic() + patience_seconds
        while (found := living(self._is_mine)) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        return found

    def _is_mine(self, process: Path) -> bool:
        return f"{_MARK}={self.mark}".encode() in (process / "environ").read_bytes().split(b"\0")

    def kill_all(self) -> None:
        """kill -9 of whatever is left."""
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def write_pictures(folder: Path, count: int = 48, side: int = 16) -> Path:
    """Smooth coloured PNGs in three class folders; made once."""
    if folder.is_dir():
        return folder
    rng = np.random.default_rng(0)
    unfinished = folder.with_suffix(".unfinished")
    for number in range(count):
        place = unfinished / f"class{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        rough = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(rough).resize((side, side), Image.Resampling.BICUBIC)
        picture.save(place / f"{number:04}.png")
    unfinished.rename(folder)
    return folder


def prepared_workspace(scratch: Path) -> Path:
    """A workspace with 48 converted pictures and the features of a random prior."""
    workspace = scratch / "workspace"
    if not (workspace / "prepared").is_file():
        rela(workspace, "convert", str(write_pictures(scratch / "pictures")))
        rela(workspace, "train", *SMALL_RUN, "--epochs", "1", "--name", "first")
        (workspace / "prepared").touch()
    return workspace


def rela(workspace: Path, *arguments: str) -> None:
    """The command line without faults, which has to succeed."""
    program = FAULTY.parents[2] / "cli.py"
    command = [sys.executable, str(program), "--workspace", str(workspace), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"rela {' '.join(arguments)}: {done.stderr[-2000:]}")


def losses_of(run: Path) -> list[float]:
    """The mean loss of every epoch."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]
