"""Representation files (rela.representations.matrix_file), read by plain h5py.

- plain h5py finds the matrix, contiguous, and the attributes;
- the bytes are a function of the arguments;
- what is damaged, truncated or something else is refused, with the rows named.
"""

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import h5py
import numpy as np
import pytest
from command_line import run_python
from damages import flip_bit

from rela.errors import DataError, UnavailableError
from rela.representations.matrix_file import ROWS_PER_PART, open_matrix, part_rows, write_matrix

NUM_ROWS, WIDTH = 2 * ROWS_PER_PART + 300, 7
ATTRIBUTES = {"prior": "resnet18", "split": "train", "class_names": '["ant", "bee"]'}


def matrix(dtype: str = "float16") -> np.ndarray:
    return np.random.default_rng(0).standard_normal((NUM_ROWS, WIDTH)).astype(dtype)


def parts(values: np.ndarray) -> Iterator[np.ndarray]:
    return (values[i : i + ROWS_PER_PART] for i in range(0, len(values), ROWS_PER_PART))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "representations.h5"
    write_matrix(path, parts(matrix()), (NUM_ROWS, WIDTH), "float16", ATTRIBUTES)
    return path


def test_another_process_reads_everything_with_plain_h5py(written: Path):
    program = """
import h5py, hashlib, json, sys
with h5py.File(sys.argv[1]) as file:
    data = file["representations"]
    print(json.dumps({
        "sha256": hashlib.sha256(data[()].tobytes()).hexdigest(),
        "shape": data.shape, "dtype": str(data.dtype), "chunks": data.chunks,
        "compression": data.compression, "attributes": dict(file.attrs),
        "digests": [d.decode() for d in file["part_sha256"][()]],
    }))
assert not any(name.partition(".")[0] == "rela" for name in sys.modules)
"""
    found = json.loads(run_python("-c", program, written, check=True).stdout)
    values = matrix()
    assert found == {
        "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
        "shape": [NUM_ROWS, WIDTH],
        "dtype": "float16",
        "chunks": None,  # contiguous
        "compression": None,
        "attributes": ATTRIBUTES,
        "digests": [hashlib.sha256(part.tobytes()).hexdigest() for part in parts(values)],
    }


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_written_matrix_reads_back(tmp_path: Path, dtype: str):
    path = tmp_path / "matrix.h5"
    write_matrix(path, parts(matrix(dtype)), (NUM_ROWS, WIDTH), dtype, ATTRIBUTES)
    opened = open_matrix(path)
    assert opened.values.dtype == dtype
    assert opened.attributes == ATTRIBUTES
    np.testing.assert_array_equal(opened.values, matrix(dtype))


def test_the_bytes_are_a_function_of_the_arguments(written: Path):
    again = written.with_name("again.h5")
    shuffled = dict(reversed(ATTRIBUTES.items()))
    write_matrix(again, parts(matrix()), (NUM_ROWS, WIDTH), "float16", shuffled)
    assert again.read_bytes() == written.read_bytes()


def test_parts_cover_every_row_once():
    count = -(-NUM_ROWS // ROWS_PER_PART)
    rows = np.concatenate([part_rows(part, NUM_ROWS) for part in range(count)])
    np.testing.assert_array_equal(rows, np.arange(NUM_ROWS))


@pytest.mark.parametrize(
    ("row", "named"),
    [(0, "rows 0 to 1023"), (1024, "rows 1024 to 2047"), (NUM_ROWS - 1, "rows 2048 to 2347")],
)
def test_one_flipped_bit_is_found_and_its_rows_are_named(written: Path, row: int, named: str):
    with h5py.File(written) as file:
        start = file["representations"].id.get_offset()
    flip_bit(written, start + row * WIDTH * 2)
    with pytest.raises(DataError, match=named):
        open_matrix(written)


@pytest.mark.parametrize("lost", [1, 2000, 30_000])
def test_a_truncated_file_is_refused(written: Path, lost: int):
    written.write_bytes(written.read_bytes()[:-lost])
    with pytest.raises(DataError, match=r"representations\.h5"):
        open_matrix(written)


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="missing"):
        open_matrix(tmp_path / "nothing.h5")


def _with_digests(file: h5py.File, **options: object) -> None:
    file.create_dataset("representations", **options)
    file.create_dataset("part_sha256", data=np.array([b"0" * 64] * 3, "S64"))


@pytest.mark.parametrize(
    "fill",
    [
        lambda file: file.create_dataset("features", data=matrix()),
        lambda file: file.create_dataset("representations", data=matrix()),
        lambda file: _with_digests(file, data=matrix(), chunks=(100, WIDTH)),
        lambda file: _with_digests(file, data=matrix().astype(np.int32)),
        lambda file: _with_digests(file, data=matrix()[:, 0]),
        lambda file: _with_digests(file, data=matrix()[:ROWS_PER_PART]),
        lambda file: file.create_group("representations"),
    ],
    ids=["name", "no digests", "chunked", "integers", "one column", "digests of others", "group"],
)
def test_another_kind_of_hdf5_file_is_refused(tmp_path: Path, fill: Callable[[h5py.File], None]):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        fill(file)
    with pytest.raises(DataError, match=r"other\.h5"):
        open_matrix(tmp_path / "other.h5")


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n"])
def test_what_is_not_hdf5_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "other.h5").write_bytes(content)
    with pytest.raises(DataError, match=r"other\.h5"):
        open_matrix(tmp_path / "other.h5")


def test_a_file_that_another_process_has_locked_is_read(written: Path):
    """As on file systems without locks, where HDF5's own lock fails."""
    program = (
        "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX); "
        "print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, written], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin and other.stdout and other.stdout.readline()
        with pytest.raises(OSError, match="lock"):
            h5py.File(written, "r", locking=True)
        assert np.array_equal(open_matrix(written).values, matrix())
        other.stdin.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_file_that_cannot_be_read_is_not_called_damaged(
    written: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    monkeypatch.setattr(h5py, "File", Mock(side_effect=OSError(number, "unable to read")))
    with pytest.raises(UnavailableError) as caught:
        open_matrix(written)
    assert os.strerror(number) in str(caught.value)
    assert not any(word in str(caught.value) for word in ("remove", "damaged", "embed again"))
