"""Damage to files and their bytes, and pickles that would run code."""

import os
from collections.abc import Iterator
from pathlib import Path


def damages(whole: bytes) -> Iterator[bytes]:
    """The same with a bit changed in any one place, cut anywhere, and with a byte more."""
    for position in range(len(whole)):
        for bit in (5, position % 8):  # bit 5 turns small letters into capitals
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            yield bytes(changed)
    for length in range(len(whole)):
        yield whole[:length]
    yield whole + b"\0"


def flip_bit(path: Path, position: int | None = None, bit: int = 0) -> None:
    """Flip one bit of a file in place, by default in its middle; flip it again to undo."""
    with open(path, "r+b") as file:
        num_bytes = os.fstat(file.fileno()).st_size
        position = num_bytes // 2 if position is None else position % num_bytes
        file.seek(position)
        value = file.read(1)[0]
        file.seek(position)
        file.write(bytes([value ^ (1 << bit)]))


class RunsWhenUnpickled:
    """Makes the directory `trace` if a pickle of it is executed."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.trace),)
