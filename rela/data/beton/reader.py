"""Reading a beton: every structure is checked before it is used.

FFCV's own reader accepts files without an allocation table, reads past the end of truncated ones and
returns another sample's pixels when an image does not decode. Here every pointer is checked when the file
is opened, and every image when it is decoded.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rela.data.ffcv_format import (
    ALLOCATION,
    FIELD,
    FIELD_TYPE_IDS,
    HEADER,
    METADATA,
    METADATA_START,
    MODE_RAW,
    VERSION,
    field_descriptors,
)
from rela.data.memory import release_pages
from rela.errors import DataError
from rela.pipeline.manifest import remedy

MAX_PIXELS = 89_478_485  # of one image: Pillow's limit, which `rela convert` keeps


@dataclass(frozen=True)
class Beton:
    """An open beton of N samples, memory-mapped.

    - `data`: uint8, the whole file; image i is `data[pointers[i] : pointers[i] + sizes[i]]`;
    - `modes` uint8 [N]: 0 JPEG, 1 raw; `heights`, `widths` uint16 [N], pixels;
    - `labels` int64 [N], -1 for unlabelled.
    """

    path: Path
    data: NDArray[np.uint8]
    pointers: NDArray[np.uint64]
    sizes: NDArray[np.uint64]
    modes: NDArray[np.uint8]
    heights: NDArray[np.uint16]
    widths: NDArray[np.uint16]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def address(self) -> int:
        """Where the mapping begins in memory, for compiled kernels."""
        return int(self.data.ctypes.data)

    def storage(self) -> tuple[Any, ...]:
        """First arguments of the kernels in `rela.data.kernels.samples`; the Beton must outlive the call."""
        return (
            np.uint64(self.address), self.pointers, self.sizes, self.modes, self.heights, self.widths,
        )  # fmt: skip

    def release_pages(self) -> None:
        """Release the pages read so far; they stay in the page cache."""
        release_pages(self.data)


def open_beton(path: Path, num_classes: int | None = None) -> Beton:
    """Open and check a beton with the fields image, label and index.

    Raises DataError with the reason: not a beton, unfinished, truncated, pointers outside the file,
    impossible sizes, or labels not below `num_classes`.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is not a file, expected a beton; {remedy(path.parent)}")
        data = np.memmap(path, np.uint8, "r")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; run `rela convert` first") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a file of zero bytes
        raise DataError(f"{path} is empty, expected a beton; {remedy(path.parent)}") from error

    def damaged(reason: str) -> DataError:
        return DataError(f"{path} is not a complete beton: {reason}; {remedy(path.parent)}")

    def read(offset: int, dtype: Any, count: int) -> NDArray[Any]:
        if offset + count * dtype.itemsize > data.size:
            raise damaged(f"it ends after {data.size:,} bytes")
        return np.frombuffer(data, dtype, count, offset)

    header = read(0, HEADER, 1)[0]
    if header["version"] != VERSION:
        raise damaged(f"format version {header['version']}, expected {VERSION}")
    table_start, num_samples = int(header["alloc_table_ptr"]), int(header["num_samples"])
    if not 0 < table_start <= data.size:
        raise damaged("the header has no allocation table")
    fields = read(HEADER.itemsize, FIELD, len(FIELD_TYPE_IDS))
    if header["num_fields"] != len(fields) or fields.tobytes() != field_descriptors().tobytes():
        raise damaged(f"it has other fields than {', '.join(FIELD_TYPE_IDS)}")
    metadata = read(METADATA_START, METADATA, num_samples)
    table_bytes = data.size - table_start
    if num_samples == 0 or table_bytes != num_samples * ALLOCATION.itemsize:
        raise damaged(f"{table_bytes:,} bytes of allocation table for {num_samples:,} samples")
    table = read(table_start, ALLOCATION, num_samples)
    image, label, index = metadata["image"], metadata["label"], metadata["index"]
    pointers, sizes = table["ptr"].copy(), table["size"].copy()
    if not np.array_equal(table["sample_id"], np.arange(num_samples)):
        raise damaged("its allocation table is not in the order of its samples")
    if not (
        np.array_equal(image["data_ptr"], pointers)
        and np.array_equal(index, np.arange(num_samples))
    ):
        raise damaged("its metadata and its allocation table disagree")
    if (sizes > table_start).any() or (pointers > table_start - sizes).any():
        raise damaged("an image lies outside the file")
    modes, heights, widths = image["mode"].copy(), image["height"].copy(), image["width"].copy()
    pixels = heights.astype(np.int64) * widths
    if (modes > MODE_RAW).any() or (pixels == 0).any() or (pixels > MAX_PIXELS).any():
        raise damaged("an image has an impossible size or mode")
    bad = np.flatnonzero((modes == MODE_RAW) & (sizes != 3 * pixels.astype(np.uint64)))
    if bad.size:
        raise damaged(f"the stored image {bad[0]} has another size than its entry states")
    if label.min() < -1 or (num_classes is not None and label.max() >= max(num_classes, 1)):
        raise damaged(f"its labels are not those of {num_classes} classes")
    return Beton(
        path=path,
        data=data,
        pointers=pointers,
        sizes=sizes,
        modes=modes,
        heights=heights,
        widths=widths,
        labels=label.copy(),
    )


def raise_undecodable(beton: Beton, rows: NDArray[np.int64], status: NDArray[np.uint8]) -> None:
    """Raise DataError naming the first of `rows` whose decoding status is not OK."""
    from rela.data.kernels.decode import OK, WRONG_SIZE

    bad = np.flatnonzero(status != OK)
    if bad.size:
        row, reason = int(rows[bad[0]]), int(status[bad[0]])
        what = (
            "has another size than its entry states" if reason == WRONG_SIZE else "does not decode"
        )
        raise DataError(
            f"{beton.path}: the stored image {row} {what} ({bad.size} of {rows.size} in this batch); "
            f"the file is damaged; {remedy(beton.path.parent)}"
        )
