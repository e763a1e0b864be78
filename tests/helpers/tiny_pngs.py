"""PNGs and TIFFs that Pillow does not write, by hand."""

import struct
import zlib

import numpy as np

GRAY, COLOUR, GRAY_ALPHA, COLOUR_ALPHA = 0, 2, 4, 6  # colour types of PNG
_TYPE_OF_CHANNELS = {1: GRAY, 2: GRAY_ALPHA, 3: COLOUR, 4: COLOUR_ALPHA}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: list[bytes], width: int, depth: int, colour_type: int, *more: bytes) -> bytes:
    """A PNG of packed rows; `more`: chunks before the pixels."""
    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [chunk(b"IHDR", head), *more, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def deep_png(values: np.ndarray, *more: bytes) -> bytes:
    """A PNG of 16 bits; uint16 [height, width, channels]."""
    rows = [row.astype(">u2").tobytes() for row in values]
    return png(rows, values.shape[1], 16, _TYPE_OF_CHANNELS[values.shape[2]], *more)


def tiff(
    values: np.ndarray,
    bits: int = 16,
    orientation: int = 1,
    white_is_zero: bool = False,
    planes: bool = False,
    sample_format: int = 1,
) -> bytes:
    """An uncompressed TIFF; [height, width, channels] of `bits`, packed from uint16 if they are 12.

    - `planes`: one channel after the other; `sample_format`: 2 signed, 3 floating-point.
    """
    height, width, channels = values.shape
    data = (
        np.moveaxis(values, 2, 0) if planes else values
    ).tobytes()  # this machine's: little-endian
    if bits == 12:
        pairs = values.reshape(height, -1, 2).astype(np.uint32)
        first, second = pairs[:, :, 0], pairs[:, :, 1]
        packed = (first >> 4, (first & 15) << 4 | second >> 8, second & 255)
        data = np.stack(packed, axis=-1).astype(np.uint8).tobytes()
    bits_at = 8 + len(data) + len(data) % 2
    strips_at = bits_at + 2 * channels
    directory = strips_at + 8 * channels
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, bits_at if channels > 1 else bits),
        (259, 3, 1, 1), (262, 3, 1, 2 if channels > 2 else 1 - white_is_zero), (273, 4, 1, 8),
        (274, 3, 1, orientation), (277, 3, 1, channels), (278, 4, 1, height), (279, 4, 1, len(data)),
        (284, 3, 1, 1), (339, 3, 1, sample_format),
    ]  # fmt: skip
    strips = bytes(8 * channels)
    if planes:
        size = len(data) // channels
        starts = [8 + size * number for number in range(channels)]
        strips = struct.pack(f"<{2 * channels}I", *starts, *[size] * channels)
        changed = {
            273: (4, channels, strips_at),
            279: (4, channels, strips_at + 4 * channels),
            284: (3, 1, 2),
        }
        tags = [(tag[0], *changed.get(tag[0], tag[1:])) for tag in tags]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (
        b"II*\0" + struct.pack("<I", directory) + data + b"\0" * (len(data) % 2)
        + struct.pack(f"<{channels}H", *[bits] * channels)
        + strips + struct.pack("<H", len(tags)) + entries + b"\0" * 4
    )  # fmt: skip
