"""Peers from PyPI beside the packages that are here, and what processes of both cost."""

import os
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

LIGHTLY_TRAIN = "lightly-train==0.18.0"
REPOSITORY = Path(__file__).parents[2]


def environment(folder: Path, *packages: str) -> Path:
    """The Python of an environment with `packages` and everything that is installed here."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder)
        here = sysconfig.get_paths()["purelib"]
        site = next(folder.glob("lib/python*/site-packages"))
        (site / "shared.pth").write_text(here)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    return python


def run_process(*words: object) -> None:
    """A command, to its end; raises RuntimeError with what it said if it fails."""
    ran = subprocess.run(
        [str(word) for word in words], cwd=REPOSITORY, capture_output=True, text=True
    )
    if ran.returncode:
        raise RuntimeError(ran.stderr[-3000:])


def cpu_seconds_of_children() -> float:
    """Of all processes that have ended below this one."""
    spent = os.times()
    return spent.children_user + spent.children_system


def per_cpu_second(count: int, process: Callable[[int], object], few: int, many: int) -> float:
    """How many a second, of `count` in each epoch of `process(epochs)`, which runs in a process of its own.

    What `few` epochs take is subtracted from what `many` take, so that start and end do not count.
    """
    seconds = []
    for epochs in (few, many):
        before = cpu_seconds_of_children()
        process(epochs)
        seconds.append(cpu_seconds_of_children() - before)
    return count * (many - few) / (seconds[1] - seconds[0])
