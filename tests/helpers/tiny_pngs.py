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


def tiff(values: np.ndarray, bits: int = 16, orientation: int = 1) -> bytes:
    """An uncompressed TIFF; uint16 [height, width, channels], packed if it has 12 bits."""
    height, width, channels = values.shape
    data = values.astype("<u2").tobytes()
    if bits == 12:
        pairs = values.reshape(height, -1, 2).astype(np.uint32)
        first, second = pairs[:, :, 0], pairs[:, :, 1]
        packed = (first >> 4, (first & 15) << 4 | second >> 8, second & 255)
        data = np.stack(packed, axis=-1).astype(np.uint8).tobytes()
    bits_at = 8 + len(data) + len(data) % 2
    directory = bits_at + 2 * channels
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, bits_at if channels > 1 else bits),
        (259, 3, 1, 1), (262, 3, 1, 2 if channels > 2 else 1), (273, 4, 1, 8), (274, 3, 1, orientation),
        (277, 3, 1, channels), (278, 4, 1, height), (279, 4, 1, len(data)),
    ]  # fmt: skip
    if channels > 2:
        tags[2] = (258, 3, channels, bits_at)
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (
        b"II*\0" + struct.pack("<I", directory) + data + b"\0" * (len(data) % 2)
        + struct.pack(f"<{channels}H", *[bits] * channels)
        + struct.pack("<H", len(tags)) + entries + b"\0" * 4
    )  # fmt: skip
