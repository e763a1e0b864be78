"""Features with paths and labels, written for other programs: HDF5, Parquet, NumPy, faiss.

Every writer takes (path, splits, attributes), writes blocks of rows, keeps the features' type, and leaves an
unfinished file or folder if writing fails. The bytes depend only on the arguments and the library's version.
"""

import csv
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from rela.data.memory import blocks
from rela.errors import UnavailableError, require
from rela.representations.matrix_file import ROWS_PER_PART
from rela.representations.named import NamedRepresentations
from rela.representations.neighbors import directions
from rela.representations.safe_hdf5 import new_hdf5_file

if TYPE_CHECKING:
    from types import ModuleType

Splits = Mapping[str, NamedRepresentations]
Write = Callable[[Path, Splits, Mapping[str, Any]], None]
FEATURES_FILE, LABELS_FILE, IMAGES_FILE, INDEX_FILE = (
    "features.npy", "labels.npy", "images.csv", "index.faiss",
)  # fmt: skip
_COLUMNS = ("path", "split", "label", "class")
_ROWS_PER_GROUP = 8 * ROWS_PER_PART  # of a Parquet file
_LAYOUT = (
    "one group per split with `features` [N, D], `paths` [N] (files, relative to the folder of images), "
    "`labels` [N] (rows of /class_names; -1: none); row i of each is the same image"
)


def write_hdf5(path: Path, splits: Splits, attributes: Mapping[str, Any]) -> None:
    """One file: `SPLIT/features`, `SPLIT/paths`, `SPLIT/labels` and `class_names`, with attributes.

    `features` are contiguous, texts are UTF-8. Raises OSError if writing fails.
    """
    with new_hdf5_file(path) as (file, raise_error):
        class_names = next(iter(splits.values())).class_names
        _write_texts(file, "class_names", class_names)
        for name, value in sorted({**attributes, "layout": _LAYOUT}.items()):
            file.attrs[name] = value
        for split, found in sorted(splits.items()):
            group, array = file.create_group(split), found.array
            values = group.create_dataset("features", array.shape, array.dtype, track_times=False)
            for start, rows in blocks(array, ROWS_PER_PART):
                values[start : start + len(rows)] = rows
                raise_error()
            _write_texts(group, "paths", found.paths)
            group.create_dataset("labels", data=found.labels, track_times=False)


def write_parquet(path: Path, splits: Splits, attributes: Mapping[str, Any]) -> None:
    """One file with the columns path, split, label (int64, -1: none), class and embedding.

    `embedding` is a list of D float16 or float32. Attributes are in the schema's metadata. Names that are not
    UTF-8 have escapes, as in `\\xff`. Raises OSError if writing fails.
    """
    pyarrow = require_pyarrow()
    from pyarrow import parquet

    [width] = {found.array.shape[1] for found in splits.values()}
    dtype = pyarrow.from_numpy_dtype(np.result_type(*(f.array.dtype for f in splits.values())))
    text = pyarrow.string()
    kinds = (text, text, pyarrow.int64(), text, pyarrow.list_(dtype, width))
    schema = pyarrow.schema(
        list(zip((*_COLUMNS, "embedding"), kinds, strict=True)), _as_texts(attributes)
    )
    with (
        open(path, "wb") as file,
        parquet.ParquetWriter(file, schema, use_dictionary=["split", "class"]) as writer,
    ):
        for start, split, found in _blocks_of(splits, _ROWS_PER_GROUP):
            rows = slice(start, start + _ROWS_PER_GROUP)
            columns = zip(*_images(found, split, rows), strict=True)
            values = pyarrow.array(np.ravel(found.array[rows]), dtype)
            batch = [
                *(
                    pyarrow.array(map(_utf8, c), kind)
                    for c, kind in zip(columns, kinds, strict=False)
                ),
                pyarrow.FixedSizeListArray.from_arrays(values, width),
            ]
            writer.write_batch(pyarrow.record_batch(batch, schema=schema))


def write_npy(path: Path, splits: Splits, attributes: Mapping[str, Any]) -> None:
    """A folder: features.npy [N, D], labels.npy int64 [N] (-1: none), images.csv with a line for each row.

    NumPy opens the arrays without pickle, also memory-mapped. Raises OSError if writing fails.
    """
    arrays = [found.array for found in splits.values()]
    shape = sum(map(len, arrays)), arrays[0].shape[1]
    dtype = np.result_type(*(array.dtype for array in arrays))
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with open(path / FEATURES_FILE, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for array in arrays:
            for _, rows in blocks(array, ROWS_PER_PART):
                file.write(np.ascontiguousarray(rows, dtype).data)
    np.save(path / LABELS_FILE, np.concatenate([found.labels for found in splits.values()]))
    _write_images(path, splits)


def write_faiss(path: Path, splits: Splits, attributes: Mapping[str, Any]) -> None:
    """A folder: index.faiss and images.csv, whose line i describes id i.

    An IndexFlatIP of the rows scaled to length 1, as float32: inner products are cosines, and the search is
    exact. It is written in blocks after the header of an empty index, so that it need not fit in memory, and
    then opened memory-mapped to see that faiss reads it. Raises OSError if writing fails.
    """
    faiss = require_faiss()
    arrays = [found.array for found in splits.values()]
    num_rows, width = sum(map(len, arrays)), arrays[0].shape[1]
    header = bytearray(faiss.serialize_index(faiss.IndexFlatIP(width)).tobytes())
    # faiss/impl/index_write.cpp: name, int32 width, int64 rows, ...; at the end uint64 numbers that follow
    struct.pack_into("<q", header, 8, num_rows)
    struct.pack_into("<Q", header, len(header) - 8, num_rows * width)
    last = np.zeros(width, np.float32)
    with open(path / INDEX_FILE, "wb") as file:
        file.write(header)
        for array in arrays:
            for _, rows in blocks(array, ROWS_PER_PART):
                unit = directions(rows.astype(np.float32))
                file.write(unit.data)
                last = unit[-1]
    index = faiss.read_index(str(path / INDEX_FILE), faiss.IO_FLAG_MMAP_IFC)
    found = index.ntotal, index.metric_type, index.reconstruct(num_rows - 1).tolist()
    expected = num_rows, faiss.METRIC_INNER_PRODUCT, last.tolist()
    if found != expected:
        raise UnavailableError(
            f"faiss {faiss.__version__} reads another index than was written; use --to npy, and make one of "
            "it"
        )
    _write_images(path, splits)


def require_pyarrow() -> "ModuleType":
    """pyarrow; raises ChoiceError with the command that installs it."""
    return require("pyarrow", "hf", "Parquet files")  # type: ignore[no-any-return]


def require_faiss() -> "ModuleType":
    """faiss; raises ChoiceError with the command that installs it."""
    return require("faiss", "faiss", "--to faiss")  # type: ignore[no-any-return]


def _blocks_of(splits: Splits, num_rows: int) -> Iterator[tuple[int, str, NamedRepresentations]]:
    """(first row, split, its representations) of every block of all splits."""
    for split, found in splits.items():
        for start, _ in blocks(found.array, num_rows):
            yield start, split, found


def _images(
    found: NamedRepresentations, split: str, rows: slice
) -> Iterator[tuple[str, str, int, str | None]]:
    """Path, split, label and class of the images in some rows."""
    for path, label in zip(found.paths[rows], found.labels[rows].tolist(), strict=True):
        yield path, split, label, found.class_names[label] if label >= 0 else None


def _write_images(path: Path, splits: Splits) -> None:
    """images.csv: row, path, split, label, class; an empty class for none.

    Bytes of file names that are not UTF-8 are written unchanged.
    """
    with open(
        path / IMAGES_FILE, "w", encoding="utf-8", errors="surrogateescape", newline=""
    ) as file:
        # texts are quoted: csv does not quote a carriage return by itself
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(("row", *_COLUMNS))
        row = 0
        for split, found in splits.items():
            for image in _images(found, split, slice(None)):
                writer.writerow((row, *image))
                row += 1


def _write_texts(group: Any, name: str, texts: list[str]) -> None:
    """Bytes of file names that are not UTF-8 are written unchanged."""
    stored = [text.encode("utf-8", "surrogateescape") for text in texts]
    group.create_dataset(
        name, (len(texts),), h5py.string_dtype(), data=stored or None, track_times=False
    )


def _as_texts(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Attributes as texts; what is none is JSON."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in sorted(attributes.items())}


def _utf8(value: Any) -> Any:
    """A text that UTF-8 can hold; anything else unchanged."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
