"""Trainings in several processes, started in every way there is, with a fault in one of them."""

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.faults.jobs import Job
from benchmarks.faults.workspaces import write_digits
from rela.distributed.ranks import free_port

LIMIT_SECONDS = 300.0
STARTS = ("rela train --devices 2", "torchrun")
_TRAIN = (
    "train", "--prior", "random", "--model", "squeezenet1_1", "--image-size", 32, "--batch-size", 8,
    "--handover", 0.5,
)  # fmt: skip


def start(
    workspace: Path, how: str, *arguments: object, fault: str = "", before: tuple[str, ...] = ()
) -> Job:
    """`rela ARGUMENTS` in processes of which one has a `fault` (see faulty.py), with words `before` it.

    `how`: one of STARTS, on two processes; the options of torchrun, or none for one process.
    """
    launcher: list[str] = []
    if how == "torchrun":
        how = f"--nproc-per-node 2 --master-port {free_port()}"
    if how.startswith("--"):
        launcher = ["-m", "torch.distributed.run", *how.split()]
    devices = () if how != STARTS[0] else ("--devices", 2)
    return Job.program(
        *before, sys.executable, *launcher, "-m", "benchmarks.faults.faulty",
        "--workspace", workspace, *arguments, *devices,
        log=Path(tempfile.mkdtemp(prefix="rela-ranks-")) / "log", RELA_FAULT=fault,
    )  # fmt: skip


def rela(workspace: Path, *arguments: object) -> None:
    """The command line without faults, which has to succeed."""
    job = start(workspace, "", *arguments)
    if job.wait(LIMIT_SECONDS):
        raise RuntimeError(f"rela {' '.join(map(str, arguments))}: {job.said()[-2000:]}")


def training(seed: int, epochs: int, *options: object) -> tuple[str, list[object]]:
    """The name of a run of its own, and the command that trains it."""
    name = f"run{seed}"
    return name, [*_TRAIN, "--epochs", epochs, "--seed", seed, *options, "--name", name]


def prepared_workspace(scratch: Path) -> Path:
    """A workspace with 48 converted pictures and the features of a random prior; made once."""
    workspace = scratch / "workspace"
    if not (workspace / "prepared").is_file():
        rela(workspace, "convert", write_digits(scratch / "pictures", 48), "--val-fraction", 0)
        rela(workspace, *training(0, 1)[1])
        (workspace / "prepared").touch()
    return workspace


def losses_of(workspace: Path, name: str) -> list[float]:
    """The mean loss of every epoch of a run."""
    lines = (workspace / "runs" / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]
