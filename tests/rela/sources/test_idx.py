"""IDX files: MNIST and its relatives, against the bytes that the format describes.

Covers: gzipped and plain, names of every edition, torchvision's folders, several editions in one folder,
labels of several columns, files that are cut, too long, of other types, or claim too much.
"""

import gzip
import re
import shlex
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_line import run_rela
from opened import open_as, paths_and_labels

from rela.errors import ChoiceError, DataError
from rela.sources import default_name
from rela.sources.source import content_sha256

opened, found = partial(open_as, "idx"), paths_and_labels


def idx(array: np.ndarray) -> bytes:
    code = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D}[array.dtype.str[1:]]
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def images(seed: int, count: int, side: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side)).astype(np.uint8)


def save(folder: Path, name: str, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def mnist(
    folder: Path, edition: str = "", test: str = "t10k", dot: str = "-", gz: str = ""
) -> Path:
    for seed, (split, count) in enumerate(((f"{edition}train", 5), (f"{edition}{test}", 3))):
        save(folder, f"{split}-images{dot}idx3-ubyte{gz}", idx(images(seed, count)))
        labels = (np.arange(count) % 3 + 7).astype(np.uint8)
        save(folder, f"{split}-labels{dot}idx1-ubyte{gz}", idx(labels))
    return folder


@pytest.mark.parametrize(
    "named",
    [
        {}, {"gz": ".gz"}, {"dot": "."}, {"edition": "emnist-letters-", "test": "test", "gz": ".gz"},
        {"edition": "kmnist-"},
    ],
)  # fmt: skip
def test_pixels_labels_and_splits_are_those_of_the_files(tmp_path: Path, named: dict[str, str]):
    source = opened(mnist(tmp_path, **named))
    assert source.class_names == ["7", "8", "9"]
    assert [label for _, label in found(source)] == [0, 1, 2, 0, 1]
    assert [label for _, label in found(source, "val")] == [0, 1, 2]
    for split, seed, count in (("train", 0, 5), ("val", 1, 3)):
        for sample, gray in zip(source.splits[split], images(seed, count), strict=True):
            pixels = sample.read(source.root)
            assert isinstance(pixels, np.ndarray) and pixels.shape == (6, 6, 3)
            assert (pixels == gray[:, :, None]).all() and len(content_sha256(pixels)) == 64
    assert bool(source.notes) == named.get("edition", "").startswith("emnist")
    first = found(source)[0][0]
    assert first.endswith("/0") and ".gz" not in first


def test_the_folders_of_torchvision_and_a_file(tmp_path: Path):
    mnist(tmp_path / "data/MNIST/raw")
    mnist(tmp_path / "data/MNIST/raw", gz=".gz")  # kept beside the plain files
    assert len(opened(tmp_path / "data").splits["train"]) == 5
    path = tmp_path / "data/MNIST/raw/train-images-idx3-ubyte.gz"
    assert len(opened(path).splits["val"]) == 3 and default_name(path) == "train"


def test_several_editions_are_listed_with_commands(tmp_path: Path):
    for edition in ("emnist-letters-", "emnist-digits-"):
        mnist(tmp_path / "gzip", edition, "test", gz=".gz")
    with pytest.raises(ChoiceError, match="holds 2 data sets") as caught:
        opened(tmp_path)
    commands = re.findall("`rela (.*?)`", str(caught.value))
    assert len(commands) == 2
    for command in commands:
        run_rela("--workspace", tmp_path / "ws", *shlex.split(command), "--workers", 1)
    assert (tmp_path / "ws/datasets/emnist-digits-train").is_dir()


def test_labels_of_several_columns_colours_and_none(tmp_path: Path):
    save(tmp_path / "q", "qmnist-train-images-idx3-ubyte", idx(images(0, 2)))
    columns = np.array([[4, 1, 2], [6, 3, 4]], np.int32)
    save(tmp_path / "q", "qmnist-train-labels-idx2-int", idx(columns))
    assert opened(tmp_path / "q").class_names == ["4", "6"]
    colours = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)
    save(tmp_path / "c", "train-images-idx3-ubyte", idx(colours))
    source = opened(tmp_path / "c")
    assert not source.labelled
    np.testing.assert_array_equal(source.splits["train"][1].read(source.root), colours[1])


def test_a_folder_with_other_files_is_none(tmp_path: Path):
    from rela.sources import find_kind

    save(tmp_path / "a", "my-images.png", b"")
    assert find_kind(tmp_path) == "folder"


GOOD = idx(images(0, 5))
BAD: dict[str, tuple[bytes, str]] = {
    "cut": (GOOD[:-1], "its header says 180 bytes, found 179"),
    "too long": (GOOD + b"\0", "found more"),
    "no header": (b"\0\0\x08", "not an IDX file"),
    "a cut header": (GOOD[:9], "damaged"),
    "other magic": (b"PK" + GOOD[2:], "not an IDX file"),
    "floats": (idx(np.zeros((5, 2, 2), np.float32)), "not an IDX file"),
    "numbers": (idx(np.zeros((5, 2, 2), np.int16)), "no images"),
    "vectors": (idx(np.zeros((5, 2), np.uint8)), "no images"),
    "five dimensions": (b"\0\0\x08\x05" + bytes(20), "not an IDX file"),
    "too much": (struct.pack(">BBBB3I", 0, 0, 8, 3, 1 << 31, 1 << 31, 1 << 31), "claims"),
    "none": (idx(images(0, 0)), "5 labels for 0 images"),
    "fewer": (idx(images(0, 4)), "5 labels for 4 images"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("gz", ["", ".gz"])
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, case: str, gz: str):
    content, message = BAD[case]
    mnist(tmp_path, gz=gz)
    save(tmp_path, f"train-images-idx3-ubyte{gz}", content)
    with pytest.raises(DataError, match=message) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_damaged_gzip_is_refused(tmp_path: Path):
    mnist(tmp_path, gz=".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    for content in (path.read_bytes()[:-9], path.read_bytes()[:30] + b"\xff" * 40):
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            opened(tmp_path)
