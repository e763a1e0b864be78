"""CIFAR from its archives, against torchvision reading the same files.

Covers: python and binary editions, archives and folders, both data sets: pixels, labels, class names,
order and names; damaged batches; pickles that would run code or exhaust memory.
"""

import contextlib
import gzip
import io
import pickle
import struct
import tarfile
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run_rela
from damages import RunsWhenUnpickled
from opened import open_as, paths_and_labels
from pictures import picture
from torchvision.datasets import CIFAR10, CIFAR100

from rela.data.beton.reader import open_beton
from rela.errors import DataError, UnsafeError
from rela.sources.restricted_pickle import read_plain_pickle
from rela.sources.source import ImageSource

_PER_BATCH = 4
_NAMES_10 = ["airplane", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck", "van"]
_NAMES_100 = [f"fine {number}" for number in range(100)]
_BATCHES = [f"data_batch_{number}" for number in range(1, 6)]

pytestmark = pytest.mark.filterwarnings("ignore:.*align should be passed")  # NumPy 2 in torchvision


def planes(seed: int) -> np.ndarray:
    """uint8 [4, 3072], as CIFAR keeps images: all of red, then green, then blue."""
    images = [picture(seed * _PER_BATCH + i, 32, 32) for i in range(_PER_BATCH)]
    return np.stack([image.transpose(2, 0, 1).ravel() for image in images])


def python_files(num_classes: int) -> dict[str, bytes]:
    """The files of an edition as pickles in protocol 2, the bytes as Python 2 wrote them."""
    key = "labels" if num_classes == 10 else "fine_labels"
    batches = [*_BATCHES, "test_batch"] if num_classes == 10 else ["train", "test"]
    files = {}
    for seed, name in enumerate(batches):
        labels = [(7 * seed + i) % num_classes for i in range(_PER_BATCH)]
        batch = {"data": planes(seed), key: labels, "filenames": ["x.png"] * _PER_BATCH}
        if num_classes == 100:
            batch["coarse_labels"] = [0] * _PER_BATCH
        files[name] = pickle.dumps(batch, protocol=2)
    if num_classes == 10:
        files["batches.meta"] = pickle.dumps({"label_names": _NAMES_10}, protocol=2)
    else:
        files["meta"] = pickle.dumps({"fine_label_names": _NAMES_100}, protocol=2)
    return files


def folder_of(num_classes: int) -> str:
    return "cifar-10-batches-py" if num_classes == 10 else "cifar-100-python"


def binary_files(num_classes: int) -> dict[str, bytes]:
    """The same images and labels in the binary edition."""
    files = {}
    for name, content in python_files(num_classes).items():
        found = pickle.loads(content)
        if "data" in found:
            labels = found["labels" if num_classes == 10 else "fine_labels"]
            before = b"" if num_classes == 10 else b"\x13"
            rows = zip(labels, found["data"], strict=True)
            files[f"{name}.bin"] = b"".join(before + bytes([n]) + d.tobytes() for n, d in rows)
    names = _NAMES_10 if num_classes == 10 else _NAMES_100
    text = "\n".join(name.replace(" ", "_") for name in names) + "\n\n"
    files["batches.meta.txt" if num_classes == 10 else "fine_label_names.txt"] = text.encode()
    return files


def archive(path: Path, folder: str, files: dict[str, bytes], **links: str) -> Path:
    """`files` and symbolic links in a folder of an archive."""
    with tarfile.open(path, "w:gz") as tar:
        head = tarfile.TarInfo(folder)
        head.type = tarfile.DIRTYPE
        tar.addfile(head)
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, target in links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    return path


def unpacked(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


opened = partial(open_as, "cifar")


def contents(source: ImageSource, split: str) -> tuple[np.ndarray, list[int]]:
    pixels = np.stack([sample.read(source.root) for sample in source.splits[split]])
    return pixels, [label for _, label in paths_and_labels(source, split)]


@pytest.fixture
def torchvision_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """torchvision's own reader of the same files, which are not those that it knows digests of."""

    def read(num_classes: int, train: bool) -> Any:
        dataset = CIFAR10 if num_classes == 10 else CIFAR100
        root = tmp_path / "torchvision"
        if not root.exists():
            unpacked(root / folder_of(num_classes), python_files(num_classes))
        monkeypatch.setattr(dataset, "_check_integrity", lambda self: True)
        monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *a: True)
        return dataset(str(root), train=train)

    return read


@pytest.mark.parametrize("num_classes", [10, 100])
@pytest.mark.parametrize("edition", ["python archive", "python folder", "binary archive"])
def test_pixels_labels_and_order_are_those_of_torchvision(
    tmp_path: Path, torchvision_reads: Callable[..., Any], num_classes: int, edition: str
):
    if edition == "binary archive":
        folder = "cifar-10-batches-bin" if num_classes == 10 else "cifar-100-binary"
        path = archive(tmp_path / "renamed.tgz", folder, binary_files(num_classes))
    elif edition == "python archive":
        path = archive(tmp_path / "c.tar.gz", folder_of(num_classes), python_files(num_classes))
    else:
        path = unpacked(tmp_path / folder_of(num_classes), python_files(num_classes))
    source = opened(path)
    for split in ("train", "val"):
        theirs = torchvision_reads(num_classes, split == "train")
        pixels, labels = contents(source, split)
        np.testing.assert_array_equal(pixels, theirs.data)
        assert labels == theirs.targets
    blank = "_" if edition == "binary archive" else " "
    assert source.class_names == [name.replace(" ", blank) for name in theirs.classes]


def test_converted_archives_hold_these_pixels_and_name_them(tmp_path: Path):
    path = archive(tmp_path / "cifar-10-python.tar.gz", folder_of(10), python_files(10))
    for workers in (1, 2):
        words = ("--workspace", tmp_path / f"ws{workers}", "convert", path, "--workers", workers)
        assert "written to" in run_rela(*words).stdout
    assert "already exists" in run_rela(*words).stdout
    data = tmp_path / "ws1" / "datasets" / "cifar-10-python"
    for name in ("train.beton", "val.beton", "train.csv"):
        other = tmp_path / "ws2" / "datasets" / "cifar-10-python" / name
        assert (data / name).read_bytes() == other.read_bytes()
    beton, source = open_beton(data / "train.beton", 10), opened(path)
    expected, labels = contents(source, "train")
    for row, image in enumerate(expected):
        start = int(beton.pointers[row])
        np.testing.assert_array_equal(beton.data[start : start + 3072], image.ravel())
    assert beton.labels.tolist() == labels
    rows = (data / "train.csv").read_text().splitlines()
    assert rows[1].split(",")[2] == "data_batch_1/0" and rows[-1].split(",")[2] == "data_batch_5/3"


def test_arrays_and_bytes_of_every_protocol_are_read(tmp_path: Path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for protocol in (2, 3, 4):
        for order in (array, np.asfortranarray(array)):
            written = {"data": order, "n": [1, -2, 1 << 40], "b": b"\xff", "t": ("é", None, True)}
            found = read_plain_pickle(pickle.dumps(written, protocol), "x")
            np.testing.assert_array_equal(found.pop("data"), array)
            assert found == {"n": [1, -2, 1 << 40], "b": b"\xff", "t": ("é", None, True)}


def test_text_and_bytes_of_python_2_are_read():
    # {'data': '\xff\x00', 'n': 3} of Python 2's cPickle.dumps(..., 2)
    content = b"\x80\x02}q\x01(U\x04dataq\x02U\x02\xff\x00q\x03U\x01nK\x03u."
    assert read_plain_pickle(content, "x") == {"data": "\xff\0", "n": 3}


# What is refused


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_a_pickle_runs_no_code(tmp_path: Path, protocol: int):
    trace = tmp_path / "trace"
    files = python_files(10)
    files["data_batch_3"] = pickle.dumps({"data": RunsWhenUnpickled(trace)}, protocol)
    path = archive(tmp_path / "c.tar.gz", folder_of(10), files)
    words = ("--workspace", tmp_path / "ws", "convert", path)
    (message,) = run_rela(*words, exit_code=77).output.splitlines()
    assert "data_batch_3" in message and "would import" in message and "mkdir" in message
    assert not trace.exists()
    pickle.loads(files["data_batch_3"])  # what an ordinary reader does
    assert trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"\x80\x02}", "damaged"),
        (b"\x80\x02r\xff\xff\xff\x7f.", "damaged"),  # a memo of 32 GB
        (b"\x80\x02Pid\n.", "more than plain data needs"),
        (b"(cos\nsystem\n", "would import os.system"),
        (b"(S'ls'\nios\nsystem\n.", "more than plain data needs"),
        (b"\x80\x02\x82\x01.", "more than plain data needs"),  # a registered extension
        (b"\x80\x04)\x8c\x01a\x93.", "damaged"),
        (b"\x80\x02X\xff\xff\xff\xffa.", "damaged"),  # text of 4 GB
        (b"\x80\x02](K\x01e(\x85q\x00}h\x00K\x01s.", "damaged"),  # a key that is a list
        (b"\x80\x02cnumpy\nndarray\n(K\x01\x85cnumpy\ndtype\ntR.", "damaged"),
        (b"\x80\x02cnumpy\ndtype\nX\x01\x00\x00\x00OK\x00K\x01\x87R.", "uint8"),
        (b"}()" + b"\x85" * 100_000 + b"K\x01u.", "a key that is a tuple"),  # its hash ends Python
        (b"()" + b"\x85" * 100_000 + b"K\x01d.", "a key that is a tuple"),
        (b"\x80\x02cnumpy\ndtype\nN}U\x08__init__K\x01s\x86b.", "damaged"),  # changes the stand-in
        (b"\x80\x05\x96" + b"\xff" * 6 + b"\0\0.", "more than plain data needs"),  # a bytearray
    ],
)
def test_hostile_pickles_are_refused_in_one_line(content: bytes, message: str):
    with pytest.raises((DataError, UnsafeError), match=message) as caught:
        read_plain_pickle(content, "batch")
    assert "batch" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"]r\xff\xff\xff\x7f.",  # a memo of 32 GB
        b"\x8e" + b"\xff" * 5 + b"\0\0\0a.",  # bytes of 1 TB
        b"(" * (1 << 22),
        b"}" * (1 << 22),
        b"(c_codecs\nencode\nq\1X\0\0\x10\0" + bytes(1 << 20) + b"q\0N" + b"h\1h\0N\x86R" * 1000 + b"l.",
    ],
)  # fmt: skip
def test_a_pickle_takes_no_more_memory_than_it_can_fill(content: bytes):
    tracemalloc.start()
    try:
        with contextlib.suppress(DataError):
            read_plain_pickle(content, "batch")
        assert tracemalloc.get_traced_memory()[1] < 150 << 20
    finally:
        tracemalloc.stop()


def test_an_array_is_as_large_as_its_bytes():
    sound = pickle.dumps({"data": np.zeros((4, 300), np.uint8)}, protocol=2)
    assert sound.count(b"M,\x01") == 1  # 300
    with pytest.raises(DataError, match="another size than its bytes"):
        read_plain_pickle(sound.replace(b"M,\x01", b"M\xff\xff"), "batch")


@pytest.mark.parametrize("dtype", [np.int64, np.float32, object])
def test_arrays_of_other_types_are_refused(dtype: type):
    content = pickle.dumps(np.zeros(3, dtype), protocol=2)
    with pytest.raises(DataError, match="uint8"):
        read_plain_pickle(content, "batch")


def without(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.pop(name)  # type: ignore[return-value]


def instead(name: str, found: Any) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({name: pickle.dumps(found, protocol=2)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("data_batch_4"), "lacks data_batch_4"),
        (without("batches.meta"), "lacks batches.meta"),
        (instead("batches.meta", {"label_names": 3}), "no class names"),
        (instead("batches.meta", {"label_names": ["a", "b"]}), "there are 2 classes"),
        (instead("test_batch", {"labels": []}), "test_batch holds no images"),
        (instead("test_batch", {"data": planes(0), "labels": [1]}), "one class number for each"),
        (instead("test_batch", {"data": planes(0), "labels": ["x"] * 4}), "one class number for each"),
        (instead("test_batch", {"data": planes(0)[:, :3000], "labels": [1] * 4}), "no images"),
        (instead("test_batch", [1]), "holds no images"),
    ],
)  # fmt: skip
def test_errors_name_the_problem_of_a_batch(
    tmp_path: Path, change: Callable[[dict[str, bytes]], None], message: str
):
    files = python_files(10)
    change(files)
    with pytest.raises(DataError, match=message) as caught:
        opened(archive(tmp_path / "c.tar.gz", folder_of(10), files))
    assert "c.tar.gz" in str(caught.value)


def test_a_damaged_archive_is_refused_in_one_line(tmp_path: Path):
    sound = archive(tmp_path / "c.tar.gz", folder_of(10), python_files(10)).read_bytes()
    for content in (sound[: len(sound) // 2], sound[:9000] + bytes(100) + sound[9100:]):
        (tmp_path / "c.tar.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"c\.tar\.gz") as caught:
            opened(tmp_path / "c.tar.gz")
        assert "\n" not in str(caught.value)


def test_an_archive_that_claims_more_than_cifar_has_is_not_unpacked(tmp_path: Path):
    head = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    head.size = 1 << 33
    with gzip.open(tmp_path / "c.tar.gz", "wb") as file:
        file.write(head.tobuf())
        file.write(bytes(1 << 20))
    with pytest.raises(DataError, match="claims to hold more than CIFAR"):
        opened(tmp_path / "c.tar.gz")


def test_links_and_members_of_other_folders_are_ignored(tmp_path: Path):
    secret = tmp_path / "secret"
    files = python_files(10)
    secret.write_bytes(files.pop("test_batch"))
    folder = folder_of(10)
    links = (f"{folder}/test_batch", f"{folder}/../{folder}/test_batch")
    path = archive(tmp_path / "c.tar", folder, files, **dict.fromkeys(links, str(secret)))
    with pytest.raises(DataError, match="lacks test_batch"):
        opened(path)


def test_a_binary_batch_has_whole_images(tmp_path: Path):
    files = binary_files(10)
    files["data_batch_2.bin"] += struct.pack("B", 1)
    with pytest.raises(DataError, match=r"data_batch_2\.bin is damaged"):
        opened(unpacked(tmp_path / "cifar-10-batches-bin", files))
