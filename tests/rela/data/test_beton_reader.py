"""Opening betons, and what damage does.

Covers: an opened beton against plain numpy and PIL; files that are empty, missing, cut at any length,
no beton at all, or have a changed header, field, metadata or allocation table are refused with
DataError and their path; a damaged image inside is an error naming its row, never another pixel.
"""

import io
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
import pytest
from betons import beton_of
from command_line import run_python
from damages import flip_bit
from pictures import picture
from PIL import Image

from rela.data import ffcv_format as beton_format
from rela.data.beton.encoding import Encoding
from rela.data.beton.reader import open_beton
from rela.data.beton.writer import write_beton
from rela.data.kernels import decode
from rela.data.loader import CenterCropLoader, ViewLoader, in_batches
from rela.data.views import View
from rela.errors import DataError
from rela.sources.source import Sample

NUM_IMAGES, HEIGHT, WIDTH = 10, 24, 32
HEADER_BYTES = 24


def write(root: Path, mode: str) -> Path:
    root.mkdir()
    for i in range(NUM_IMAGES):
        Image.fromarray(picture(i, HEIGHT, WIDTH)).save(root / f"{i}.jpg", quality=95)
    return beton_of(root, mode, num_classes=3).path


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write(tmp_path_factory.mktemp("raw") / "images", "raw")


@pytest.fixture(scope="module")
def jpg(tmp_path_factory):
    return write(tmp_path_factory.mktemp("jpg") / "images", "jpg")


def copied(path: Path, folder: Path) -> Path:
    return Path(shutil.copyfile(path, folder / "copy.beton"))


def assert_refused(path: Path, match: str | None = None) -> None:
    with pytest.raises(DataError, match=match) as caught:
        open_beton(path)
    assert str(path) in str(caught.value)


def assert_every_flip_is_refused(
    path: Path, positions: Iterable[int], match: str | None = None, bits: int = 8
) -> None:
    for position in positions:
        for bit in range(bits):
            flip_bit(path, position, bit)
            assert_refused(path, match)
            flip_bit(path, position, bit)


def overwrite(path: Path, position: int, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(content)


def field_position(number: int) -> int:
    return HEADER_BYTES + number * beton_format.FIELD.itemsize


# Good files


def test_the_layout_is_that_of_ffcv():
    code = (
        "import ffcv.types as t, ffcv.fields as f; from rela.data import ffcv_format as b\n"
        "fields = [f.RGBImageField(), f.IntField(), f.IntField()]\n"
        "ours, theirs = b.METADATA, t.get_metadata_type(fields)\n"
        "assert (b.VERSION, b.HEADER) == (t.CURRENT_VERSION, t.HeaderType)\n"
        "assert b.ALLOCATION == t.ALLOC_TABLE_TYPE\n"
        "assert [b.FIELD.fields[n][1] for n in b.FIELD.names] == [\n"
        "    t.FieldDescType.fields[n][1] for n in b.FIELD.names]\n"
        "assert b.FIELD.itemsize == t.FieldDescType.itemsize\n"
        "assert [ours[i] for i in range(3)] == [theirs[i] for i in range(3)]\n"
        "assert [ours.fields[n][1] for n in ours.names] == [\n"
        "    theirs.fields[n][1] for n in theirs.names]\n"
        "assert ours.itemsize == theirs.itemsize\n"
        "assert [t.TYPE_ID_HANDLER[i] for i in b.FIELD_TYPE_IDS.values()] == [\n"
        "    type(field) for field in fields]\n"
    )
    run_python("-c", code, check=True)


def test_an_open_beton_holds_what_was_written(raw):
    beton = open_beton(raw)
    assert len(beton) == NUM_IMAGES
    assert beton.labels.tolist() == [i % 3 for i in range(NUM_IMAGES)]
    assert set(beton.heights.tolist()) == {HEIGHT} and set(beton.widths.tolist()) == {WIDTH}
    assert set(beton.modes.tolist()) == {1}
    for i in range(NUM_IMAGES):
        start, size = int(beton.pointers[i]), int(beton.sizes[i])
        expected = np.asarray(Image.open(raw.parent / "images" / f"{i}.jpg"))
        np.testing.assert_array_equal(beton.data[start : start + size], expected.ravel())


def test_stored_jpegs_are_the_source_files(jpg):
    beton = open_beton(jpg)
    assert set(beton.modes.tolist()) == {0}
    for i in range(NUM_IMAGES):
        start, size = int(beton.pointers[i]), int(beton.sizes[i])
        source = (jpg.parent / "images" / f"{i}.jpg").read_bytes()
        assert beton.data[start : start + size].tobytes() == source


# Files that are not betons


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "b"
    assert_refused(path, "rela convert")  # missing
    assert_refused(tmp_path)  # a folder
    path.touch()
    assert_refused(path, "empty")
    Image.fromarray(picture(0)).save(path, "PNG")
    assert_refused(path)
    path.write_text("image,label\n" * 1000)
    assert_refused(path)
    np.save(tmp_path / "b.npy", np.arange(5000))
    assert_refused(tmp_path / "b.npy")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = np.arange(5000)
    assert_refused(tmp_path / "b.h5")
    for seed in range(20):
        path.write_bytes(np.random.default_rng(seed).bytes(10_000))
        assert_refused(path)
    path.write_bytes(bytes(10_000))
    assert_refused(path)


def test_a_beton_cut_at_any_length_is_refused(raw, tmp_path):
    path = copied(raw, tmp_path)
    whole = path.stat().st_size
    head = field_position(3) + 500
    lengths = {*range(whole - 300, whole), *range(0, head, 7), 1, 23, 24, 25}
    lengths |= {int(x) for x in np.linspace(head, whole - 300, 100)}
    for length in sorted(lengths, reverse=True):
        os.truncate(path, length)
        assert_refused(path)


def test_trailing_bytes_are_refused(raw, tmp_path):
    path = copied(raw, tmp_path)
    with open(path, "ab") as file:
        file.write(bytes(24))
    assert_refused(path, "allocation table")


def test_an_unfinished_beton_is_refused(tmp_path):
    (tmp_path / "bad.png").touch()
    write_beton(tmp_path / "b", tmp_path, [Sample("bad.png", 0)], Encoding("raw"), 1)
    assert_refused(tmp_path / "b")


# Changed bits

STRUCTURE = [*range(0, 4), *range(8, HEADER_BYTES)]  # all but page_size, which only writers need


def test_every_changed_bit_of_the_header_is_refused(raw, tmp_path):
    path = copied(raw, tmp_path)
    assert_every_flip_is_refused(path, STRUCTURE)
    assert len(open_beton(path)) == NUM_IMAGES


def test_every_other_field_name_is_refused(raw, tmp_path):
    path = copied(raw, tmp_path)
    for field in range(3):
        start = field_position(field) + 1
        assert_every_flip_is_refused(path, range(start, start + 16), "fields")
    overwrite(path, field_position(2) + 1, b"covariate\0")
    assert_refused(path, "other fields")


def test_every_other_field_type_is_refused(raw, tmp_path):
    path = copied(raw, tmp_path)
    assert_every_flip_is_refused(path, map(field_position, range(3)), bits=3)  # FFCV's types


def test_changed_pointers_and_indices_are_refused(raw, tmp_path):
    kind = beton_format.METADATA
    image_offset, index_offset = kind.fields["image"][1], kind.fields["index"][1]
    path = copied(raw, tmp_path)
    for row in (0, 4, NUM_IMAGES - 1):
        start = field_position(3) + row * kind.itemsize
        for offset in (image_offset + beton_format.IMAGE.fields["data_ptr"][1], index_offset):
            assert_every_flip_is_refused(path, range(start + offset, start + offset + 8))


def test_changes_of_the_allocation_table_are_refused_or_found_while_loading(raw, tmp_path):
    path = copied(raw, tmp_path)
    table = path.stat().st_size - 24 * NUM_IMAGES
    for row in (0, NUM_IMAGES - 1):
        for position in range(table + 24 * row, table + 24 * (row + 1)):
            for bit in range(8):
                flip_bit(path, position, bit)
                with pytest.raises(DataError, match=r"copy\.beton"):
                    list(crops(path))
                flip_bit(path, position, bit)


# Damaged images


def crops(path: Path, num_threads: int = 1) -> CenterCropLoader:
    beton = open_beton(path)
    return CenterCropLoader(beton, in_batches(np.arange(len(beton)), 4), 24, 24, 0, num_threads)


def garbage(size: int) -> bytes:
    return np.random.default_rng(0).integers(0, 256, size).astype(np.uint8).tobytes()


def smaller_jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(0, HEIGHT - 8, WIDTH)).save(file, "JPEG", quality=30)
    return file.getvalue()


DAMAGE = {
    "zeros": lambda old: bytes(len(old)),
    "garbage": lambda old: garbage(len(old)),
    "no beginning": lambda old: bytes(20) + old[20:],
    "no end": lambda old: old[: len(old) // 2] + bytes(len(old) - len(old) // 2),
    "another size": lambda old: smaller_jpeg().ljust(len(old), b"\0"),
    "another beginning": lambda old: b"\x89PNG" + old[4:],
}


def damage(path: Path, row: int, how: str) -> None:
    beton = open_beton(path)
    start, size = int(beton.pointers[row]), int(beton.sizes[row])
    old = beton.data[start : start + size].tobytes()
    new = DAMAGE[how](old)
    assert len(new) == size
    overwrite(path, start, new)


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("row", [0, 6])
def test_a_damaged_jpeg_stops_the_center_crops_at_its_row(jpg, tmp_path, row, how):
    path = copied(jpg, tmp_path)
    damage(path, row, how)
    good = {}
    for rows, batch in crops(jpg):
        good |= dict(zip(map(int, rows), batch, strict=True))
    seen = []

    def read():
        for rows, batch in crops(path, num_threads=2):
            for r, image in zip(rows, batch, strict=True):
                assert image.equal(good[int(r)])
                seen.append(int(r))

    with pytest.raises(DataError, match=rf"copy\.beton: the stored image {row} "):
        read()
    assert seen == list(range(row // 4 * 4))


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_jpeg_stops_the_training_loader(jpg, tmp_path, how):
    path = copied(jpg, tmp_path)
    damage(path, 3, how)
    good = {int(b["index"][0]): b["views"][0] for b in ViewLoader(open_beton(jpg), (View(16),), 1)}

    def read():
        for batch in ViewLoader(open_beton(path), (View(16),), 1, num_threads=2):
            assert batch["views"][0].equal(good[int(batch["index"][0])])
            assert batch["index"][0] != 3

    with pytest.raises(DataError, match="the stored image 3 "):
        read()


def test_a_raw_image_with_another_size_in_its_entry_is_found(raw, tmp_path):
    offset = beton_format.METADATA.itemsize * 2 + beton_format.IMAGE.fields["height"][1]
    path = copied(raw, tmp_path)
    overwrite(path, field_position(3) + offset, b"\xff\x00")
    with pytest.raises(DataError, match="the stored image 2 has another size"):
        list(crops(path))


def test_no_flipped_bit_exposes_the_previous_image(jpg):
    content = np.fromfile(jpg.parent / "images" / "0.jpg", np.uint8)
    rng, decoded = np.random.default_rng(1), 0
    dark, light = np.empty((2, HEIGHT * WIDTH * 3), np.uint8)
    for _ in range(1000):
        damaged = content.copy()
        damaged[rng.integers(len(content))] ^= np.uint8(1 << rng.integers(8))
        dark[:], light[:] = 0, 255
        status = decode.decode(damaged, beton_format.MODE_JPEG, HEIGHT, WIDTH, dark)
        assert decode.decode(damaged, beton_format.MODE_JPEG, HEIGHT, WIDTH, light) == status
        if status == decode.OK:
            decoded += 1
            assert (dark == light).all()
    assert decoded > 0
