"""Reading HDF5 files that may be hostile, and writing them where a write may fail."""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5l
from numpy.typing import NDArray

_LARGEST_ATTRIBUTE_BYTES = 1 << 16


class OddHdf5Error(Exception):
    """A feature of HDF5 that plain files do not use; the message names it."""


@dataclass(frozen=True)
class PlainArray:
    """Location of an array: `shape` of `dtype` from byte `offset` of the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def map(self, path: Path) -> NDArray[Any]:
        """The array as a read-only memory map of the file."""
        return np.memmap(path, self.dtype, "r", self.offset, self.shape)


def plain_array(file: h5py.File, name: str, num_file_bytes: int) -> PlainArray:
    """The data set `name` of the root; raises OddHdf5Error unless it is contiguous and inside the file."""
    if not has_entry(file, name):
        raise OddHdf5Error(f"there is no data set {name!r}")
    if file.id.links.get_info(name.encode()).type != h5l.TYPE_HARD:
        raise OddHdf5Error(f"{name!r} is a link to another place")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise OddHdf5Error(f"{name!r} is not a data set")
    # before the shape, which opens other files if the data set is virtual
    layout = found.id.get_create_plist()
    if layout.get_layout() != h5d.CONTIGUOUS or layout.get_nfilters():
        raise OddHdf5Error(f"data set {name!r} is not contiguous")
    if layout.get_external_count():
        raise OddHdf5Error(f"the bytes of {name!r} are in another file")
    array = PlainArray(found.id.get_offset(), found.shape, found.dtype)
    if array.shape is None or array.dtype.hasobject or 0 in array.shape or array.offset is None:
        raise OddHdf5Error(f"{name!r} contains no numbers")
    if array.offset + math.prod(array.shape) * array.dtype.itemsize > num_file_bytes:
        raise OddHdf5Error(f"the file is truncated: {name!r} extends beyond its end")
    return array


def has_entry(file: h5py.File, name: str) -> bool:
    """Whether the root has a link called `name`; the link is not followed."""
    return bool(file.id.links.exists(name.encode()))


def plain_attributes(of: h5py.File | h5py.Dataset, num_file_bytes: int) -> dict[str, Any]:
    """The attributes, each a string or a number; raises OddHdf5Error for anything else.

    Attributes can share bytes, so their total length is limited to that of the file.
    """
    attributes: dict[str, Any] = {}
    left = num_file_bytes
    for name in of.attrs:
        stored = of.attrs.get_id(name)
        kind = stored.dtype
        is_plain = kind.kind in "iufSb" or h5py.check_string_dtype(kind) is not None
        if stored.shape != () or not is_plain or kind.itemsize > _LARGEST_ATTRIBUTE_BYTES:
            raise OddHdf5Error(f"attribute {name!r} is neither a text nor a number")
        value = of.attrs[name]
        attributes[name] = value
        left -= len(value) if isinstance(value, str | bytes) else kind.itemsize
        if left < 0:
            raise OddHdf5Error("the attributes are longer than the file")
    return attributes


@contextmanager
def new_hdf5_file(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """A new HDF5 file without times, and a function that raises the first error of writing it, if any.

    The error is raised at the end, too; the unfinished file stays.
    """
    with DeferredErrorFile(path, "w+") as raw:
        with h5py.File(raw, "w", libver="v110", track_order=False) as file:
            yield file, raw.raise_error
        raw.raise_error()


class DeferredErrorFile(io.FileIO):
    """Like `open(path, mode, buffering=0)`, but errors of writing are raised by `raise_error`.

    If a write fails, the HDF5 library keeps the file open without h5py's knowledge and can crash the
    process at exit. Here writes never fail: after the first error nothing more is written.
    """

    error: BaseException | None = None

    def write(self, content: Any) -> int:
        """Write all of `content`, a buffer; return its length in bytes in any case."""
        rest = memoryview(content).cast("B")
        num_bytes = len(rest)
        try:
            while rest and self.error is None:
                rest = rest[super().write(rest) :]
        except BaseException as error:  # also from a signal handler while HDF5 closes the file
            self.error = error
        return num_bytes

    def truncate(self, size: int | None = None) -> int:
        """Set the length, in bytes."""
        try:
            if self.error is None:
                super().truncate(size)
        except OSError as error:
            self.error = error
        return self.tell() if size is None else size

    def raise_error(self) -> None:
        """Raise the first error, if any."""
        if self.error is not None:
            raise self.error
