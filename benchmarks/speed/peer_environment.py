"""LightlyTrain from PyPI beside the packages that are here, and processes of both."""

import os
import subprocess
import sysconfig
import venv
from pathlib import Path

PEER = "lightly-train==0.18.0"
REPOSITORY = Path(__file__).parents[2]


def environment(folder: Path) -> Path:
    """The Python of an environment with LightlyTrain and everything that is installed here."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder)
        here = sysconfig.get_paths()["purelib"]
        site = next(folder.glob("lib/python*/site-packages"))
        (site / "shared.pth").write_text(here)
        subprocess.run([python, "-m", "pip", "install", "-q", PEER], check=True)
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
