"""File names and records of a run directory. `metrics.jsonl` holds a line of JSON per finished epoch."""

import json
import os
from pathlib import Path
from typing import Any

from rela.pipeline.files import IrregularFileError, own_file, read_regular, replace_file


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Append the record of an epoch; it is on the disk when this returns."""
    with open(path, "a", encoding="utf-8", opener=own_file) as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())  # before the checkpoint that makes it count


def keep_epochs(path: Path, epochs_done: int) -> None:
    """Drop the records of epochs that a resumed run repeats, and a line cut off by a kill."""
    if os.path.lexists(path):
        kept = [r for r in read_records(path) if r["epoch"] < epochs_done]
        replace_file(path, "".join(json.dumps(r) + "\n" for r in kept).encode())


def read_records(path: Path) -> list[dict[str, Any]]:
    """All complete records; an empty list if there is no file."""
    try:
        lines = read_regular(path).decode("utf-8", "replace").splitlines()
    except (FileNotFoundError, IrregularFileError):
        return []
    return [record for record in map(_parsed, lines) if record is not None]


def last_record(path: Path) -> dict[str, Any]:
    """The record of the last finished epoch; empty if there is none."""
    return next(reversed(read_records(path)), {})


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and type(record.get("epoch")) is int else None


METRICS_FILE = "metrics.jsonl"  # one record per epoch
PROGRESS_FILE = "progress.json"  # current progress, while it runs
SECONDS_FILE = "seconds.json"  # by phase and of the CPU, interrupted attempts included
CHECKPOINTS_DIR = "checkpoints"
INITIAL_FILE = "initial.safetensors"  # weights to begin with, while it is not finished
