"""What may have become of the bytes of a file."""

from collections.abc import Iterator


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
