"""The system calls on which durability depends, in their order."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def disk_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`fsync NAME`, `replace NAME NAME`, ..., as they happen; owners in names are cut off.

    A file that changes its name must have all its bytes synchronized by then.
    """
    calls: list[str] = []
    synchronized: dict[str, int] = {}

    def name(path: Any) -> str:
        return Path(path).name.partition("@")[0]

    def fsync(descriptor: int, original: Callable[[int], None] = os.fsync) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        synchronized[path] = os.fstat(descriptor).st_size
        calls.append(f"fsync {name(path)}")
        original(descriptor)

    def watched(call: str) -> Callable[..., None]:
        original = getattr(os, call)

        def rename(source: Any, destination: Any) -> None:
            if Path(source).is_file():
                assert synchronized[str(source)] == Path(source).stat().st_size > 0
            original(source, destination)
            calls.append(f"{call} {name(source)} {name(destination)}")

        return rename

    monkeypatch.setattr(os, "fsync", fsync)
    for call in ("replace", "rename", "link"):
        monkeypatch.setattr(os, call, watched(call))
    return calls
