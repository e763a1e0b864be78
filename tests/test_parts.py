"""The store of parts.

Covers: a written part reads back; an absent part, and one damaged or cut at any byte, is missing and
can be written again; the shards of any number partition the parts; a full disk keeps the old part.
"""

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StorageError
from pipeline.parts import PartStore

CONTENT = b"forty-two bytes of a part, more or less..."


@pytest.fixture
def store(tmp_path):
    return PartStore(tmp_path / "parts", 4)


def only_file(directory):
    (path,) = directory.iterdir()
    return path


@pytest.mark.parametrize("content", [b"", b"\0", CONTENT, os.urandom(100_000)])
def test_a_written_part_reads_back(store, content):
    store.write(2, content)
    assert store.read(2) == content


def test_parts_never_written_are_missing(store):
    assert store.missing() == [0, 1, 2, 3]
    store.write(1, CONTENT)
    assert store.missing() == [0, 2, 3]
    assert store.read(0) is None


def test_another_store_on_the_same_directory_sees_the_parts(store):
    store.write(3, CONTENT)
    assert PartStore(store.directory, 4).read(3) == CONTENT


def test_a_part_with_any_byte_changed_is_missing(store):
    store.write(0, CONTENT)
    path = only_file(store.directory)
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        assert store.read(0) is None, position


def test_a_part_of_any_other_length_is_missing(store):
    store.write(0, CONTENT)
    path = only_file(store.directory)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert store.read(0) is None, length
    path.write_bytes(whole + b"\0")
    assert store.read(0) is None


def test_a_damaged_part_can_be_made_again(store):
    store.write(0, CONTENT)
    only_file(store.directory).write_bytes(b"damaged")
    assert 0 in store.missing()
    store.write(0, CONTENT)
    assert store.read(0) == CONTENT and 0 not in store.missing()


@settings(deadline=None)
@given(num_parts=st.integers(0, 30), num_shards=st.integers(1, 12))
def test_shards_share_the_parts_without_overlap(tmp_path_factory, num_parts, num_shards):
    store = PartStore(tmp_path_factory.getbasetemp() / "never-made", num_parts)
    shares = [store.missing(shard, num_shards) for shard in range(num_shards)]
    assert sorted(part for share in shares for part in share) == list(range(num_parts))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_shard_skips_its_finished_parts(store):
    store.write(2, CONTENT)
    assert store.missing(0, 2) == [0]
    assert store.missing(1, 2) == [1, 3]


def test_a_full_disk_keeps_the_old_part(store, monkeypatch):
    store.write(0, CONTENT)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        store.write(0, b"other")
    monkeypatch.undo()
    assert store.read(0) == CONTENT
    assert len(list(store.directory.iterdir())) == 1
