"""Matrices on disk, one row per image, as HDF5 files that are checked before they are used.

Other programs can read them: a contiguous data set `representations` [N, D], `part_sha256`
[ceil(N / ROWS_PER_PART)] with one digest per part of rows, for features `image_sha256` with the digest
of each image, and attributes that describe the content.
A contiguous data set can be memory-mapped: random rows are read hundreds of times faster than from chunks.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from rela.data.memory import blocks
from rela.errors import DataError, UnavailableError
from rela.pipeline.manifest import remedy
from rela.representations.safe_hdf5 import (
    OddHdf5Error,
    PlainArray,
    has_entry,
    new_hdf5_file,
    plain_array,
    plain_attributes,
)
from rela.representations.stacked import StackedRows

ROWS_PER_PART = 1024
MATRIX, CROPS, IMAGES = "representations", "crops", "image_sha256"
_DIGESTS = "part_sha256"
_DTYPES = tuple(map(np.dtype, (np.float16, np.float32, np.int8)))  # the last one for maps
_DIGEST_DTYPE = np.dtype("S64")
_CROP_COLUMNS, _DIGEST_BYTES = 5, 32


def part_rows(part: int, num_rows: int) -> NDArray[np.int64]:
    """Row numbers of one part of an [N, D] matrix, int64."""
    return np.arange(part * ROWS_PER_PART, min((part + 1) * ROWS_PER_PART, num_rows))


def write_matrix(
    path: Path, parts: Iterator[NDArray[Any]], shape: tuple[int, int], dtype: DTypeLike,
    attributes: dict[str, Any], crops: NDArray[np.uint16] | None = None,
    images: NDArray[np.uint8] | None = None,
) -> None:  # fmt: skip
    """Write parts of ROWS_PER_PART rows as one HDF5 file.

    With `crops` uint16 [N, K, 5] and `images` uint8 [N, 32], the SHA-256 of each image, if given.

    The bytes depend only on the arguments: they contain no times and no host names. Raises OSError if
    writing fails, and leaves the unfinished file.
    """
    with new_hdf5_file(path) as (file, raise_error):
        digests = []
        matrix = file.create_dataset(MATRIX, shape, dtype, track_times=False)
        start = 0
        for part in parts:
            values = np.ascontiguousarray(part, dtype)
            matrix[start : start + len(values)] = values
            raise_error()  # stop at once on a full disk, not after hours
            digests.append(hashlib.sha256(values.tobytes()).hexdigest().encode())
            start += len(values)
        assert start == shape[0], f"{start} rows written, expected {shape[0]}"
        file.create_dataset(_DIGESTS, data=np.array(digests, "S64"), track_times=False)
        if crops is not None:
            stored = file.create_dataset(CROPS, data=crops, track_times=False)
            stored.attrs["columns"] = "top, left, height, width (pixels), flip (0 or 1)"
            stored.attrs["sha256"] = _crops_sha256(crops)
        if images is not None:
            file.create_dataset(IMAGES, data=images, track_times=False)
        for name, value in sorted(attributes.items()):
            file.attrs[name] = value


@dataclass(frozen=True)
class Matrix:
    """An [N, D] matrix in an HDF5 file, memory-mapped and checked.

    With `crops` (uint16 [N, K, 5], see rela.data.crops) each image has K consecutive rows. `images` uint8
    [N, 32]: the SHA-256 of each image, in files of features; no digest covers them but the manifest's.
    """

    path: Path
    values: NDArray[Any]
    attributes: dict[str, Any]
    crops: NDArray[np.uint16] | None = None
    images: NDArray[np.uint8] | None = None


def open_matrix(path: Path, verify: bool = True) -> Matrix:
    """Open a file written by `write_matrix`; `verify` compares every part with its digest first.

    Raises DataError if it is damaged or another kind of HDF5 file, UnavailableError if it cannot be read.
    """

    def damaged(reason: str) -> DataError:
        return DataError(f"{path} cannot be used: {reason}; {remedy(path.parent)}")

    try:
        if not path.is_file():
            raise damaged("the file is missing")
        num_bytes = path.stat().st_size
        # the file never changes: a lock protects nothing, and some file systems have none
        with h5py.File(path, "r", locking=False) as file:
            matrix = plain_array(file, MATRIX, num_bytes)
            stored = plain_array(file, _DIGESTS, num_bytes)
            attributes = plain_attributes(file, num_bytes)
            crops, crops_sha256 = None, None
            images = plain_array(file, IMAGES, num_bytes) if has_entry(file, IMAGES) else None
            if has_entry(file, CROPS):
                crops = plain_array(file, CROPS, num_bytes)
                crops_sha256 = plain_attributes(file[CROPS], num_bytes).get("sha256")
    except OddHdf5Error as error:
        raise damaged(str(error)) from error
    except DataError:
        raise
    except Exception as error:  # h5py raises many types for damaged files
        if (
            isinstance(error, OSError) and error.errno is not None
        ):  # of the system, not of the content
            raise UnavailableError(
                f"cannot read {path}: {os.strerror(error.errno)}; check that file system, then run the "
                "same command again"
            ) from error
        raise damaged(f"not a complete representations file ({error})") from error
    if len(matrix.shape) != 2 or matrix.dtype not in _DTYPES:
        raise damaged(f"data set {MATRIX!r} is not a matrix of float16, float32 or int8")
    parts = range(0, matrix.shape[0], ROWS_PER_PART)
    if stored.dtype != _DIGEST_DTYPE or stored.shape != (len(parts),):
        raise damaged(f"{list(stored.shape)} digests for {len(parts)} parts")
    values, digests = matrix.map(path), stored.map(path)
    drawn = None if crops is None else _sound_crops(crops, path, matrix.shape[0], crops_sha256)
    if crops is not None and drawn is None:
        raise damaged("the crops were changed after they were written")
    if images is not None and (images.dtype != np.uint8 or images.shape[1:] != (_DIGEST_BYTES,)):
        raise damaged(f"data set {IMAGES!r} does not hold digests")
    if verify:
        for (start, rows), expected in zip(blocks(values, ROWS_PER_PART), digests, strict=True):
            if hashlib.sha256(rows.tobytes()).hexdigest().encode() != expected:
                end = start + len(rows)
                raise damaged(f"rows {start} to {end - 1} were changed after they were written")
    return Matrix(path, values, attributes, drawn, None if images is None else images.map(path))


def stack_matrices(path: Path, matrices: Sequence[Matrix]) -> Matrix:
    """The rows of several files in `path` as one matrix, with the attributes of the first and all digests.

    Raises DataError if they differ in width or type.
    """
    kinds = {(matrix.values.shape[1], matrix.values.dtype) for matrix in matrices}
    if len(kinds) > 1:
        raise DataError(f"{path} cannot be used: its files differ in width or type; {remedy(path)}")
    values: Any = StackedRows([matrix.values for matrix in matrices])
    images = [each.images for each in matrices if each.images is not None]
    all_images = np.concatenate(images) if len(images) == len(matrices) else None
    return Matrix(path, values, matrices[0].attributes, images=all_images)


def _sound_crops(
    stored: PlainArray, path: Path, num_rows: int, sha256: Any
) -> NDArray[np.uint16] | None:
    """The crops uint16 [N, K, 5]; None if N · K is not `num_rows` or the digest differs."""
    if stored.dtype != np.uint16 or len(stored.shape) != 3 or stored.shape[2] != _CROP_COLUMNS:
        return None
    if stored.shape[0] * stored.shape[1] != num_rows:
        return None
    crops = np.array(stored.map(path))
    return crops if sha256 == _crops_sha256(crops) else None


def _crops_sha256(crops: NDArray[np.uint16]) -> str:
    return hashlib.sha256(np.ascontiguousarray(crops).tobytes()).hexdigest()
