"""`metrics.jsonl`: one record per finished epoch, a line of JSON each."""

import json
import os
from pathlib import Path
from typing import Any


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Write the record of one more epoch; on return it is on the disk."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())  # before the checkpoint that makes it count


def keep_epochs(path: Path, epochs_done: int) -> None:
    """Drop the records of epochs that a resumed run will do again, and a line cut off by a kill."""
    if path.is_file():
        kept = [r for r in read_records(path) if r["epoch"] < epochs_done]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
        os.replace(temporary, path)


def read_records(path: Path) -> list[dict[str, Any]]:
    """Every record that is whole; none where there is no file."""
    lines = (
        path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    )
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
