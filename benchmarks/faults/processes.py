"""Which processes of this machine there are."""

import contextlib
from collections.abc import Callable
from pathlib import Path


def living(is_wanted: Callable[[Path], bool]) -> list[int]:
    """Numbers of the processes whose folder in /proc `is_wanted`; those that end meanwhile are not."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if is_wanted(entry):
                    found.append(int(entry.name))
    return found
