"""The store of parts.

Covers: a written part reads back; an absent part, and one damaged or cut at any byte, is missing and
can be written again; the shards of any number partition the parts; a full disk keeps the old part.
"""

import errno
import hashlib
import math
import os
import platform
import shutil
import struct

import pytest
from damages import damages
from hypothesis import given, settings
from hypothesis import strategies as st

from rela.pipeline.errors import BusyError, StorageError
from rela.pipeline.lease import Leases, holders
from rela.pipeline.owner import owner_token
from rela.pipeline.parts import PartStore, remove_unused_parts
from rela.pipeline.spent import Spent

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


def test_a_part_with_any_byte_changed_or_of_any_other_length_is_missing_and_made_again(store):
    store.write(0, CONTENT)
    path = only_file(store.directory)
    for damaged in damages(path.read_bytes()):
        path.write_bytes(damaged)
        assert store.read(0) is None, damaged
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


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, -1.0])
def test_what_is_no_duration_counts_nothing(store, seconds):
    store.write(0, CONTENT, Spent(seconds, 1.0))
    store.write(1, CONTENT, Spent(3.0, seconds))
    assert store.recent_seconds() == 1.5
    with pytest.raises(FileNotFoundError):
        store.spent()
    assert PartStore(store.directory, 2).spent() == Spent(3.0, 1.0)


def test_a_part_in_the_layout_of_an_earlier_version_is_missing(store):
    """Its cost was one number, so that eight bytes of it would be read as content."""
    body = struct.pack("<d", 3.0) + CONTENT
    store.directory.mkdir()
    (store.directory / "part-000000").write_bytes(hashlib.sha256(body).digest() + body)
    assert store.read(0) is None and 0 in store.missing()


@pytest.mark.parametrize("length", [0, 5, 35])
def test_a_part_that_was_cut_costs_nothing(store, length):
    store.write(0, CONTENT, Spent(3.0))
    os.truncate(only_file(store.directory), length)
    assert store.recent_seconds() == 0.0


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.timeout(20)
def test_what_is_no_part_is_missing(store, make):
    store.directory.mkdir()
    make(store.directory / "part-000000")
    assert store.read(0) is None and store.missing() == [0, 1, 2, 3]
    assert store.recent_seconds() is None


def test_a_lock_that_leads_elsewhere_is_not_followed(store, tmp_path):
    store.directory.mkdir()
    (store.directory / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="found a link"), store.in_use():
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_part_is_its_digest_its_cost_and_its_content(store):
    store.write(1, CONTENT, Spent(3.0, 0.5))
    body = struct.pack("<dd", 3.0, 0.5) + CONTENT
    assert (store.directory / "part-000001").read_bytes() == (
        hashlib.sha256(b"2" + body).digest() + body
    )
    store.write(1, CONTENT)
    assert PartStore(store.directory, 0).spent() == Spent(0.0, 0.0)
    assert store.recent_seconds() == 0.0


def test_the_newest_parts_tell_the_pace(tmp_path):
    store = PartStore(tmp_path / "parts", 7)
    assert store.finished() == [] and store.recent_seconds() is None
    for part, age in enumerate([40, 50, 60, 10, 0, 30, 20]):
        store.write(part, CONTENT, Spent(2.0**part, 1.0))
        path = store.directory / f"part-{part:06d}"
        os.utime(path, (1000 - age, 1000 - age))
    oldest_first = [2, 1, 0, 5, 6, 3, 4]
    assert [int(path.name[-1]) for path in store.finished()] == oldest_first
    assert store.recent_seconds() == (1 + 32 + 64 + 8 + 16) / 5
    assert store.recent_seconds(most=2) == (8 + 16) / 2
    assert store.spent() == Spent(127.0, 7.0)


def test_parts_in_use_are_not_removed(store):
    store.write(0, CONTENT)
    lock = store.directory / ".lock"
    host = owner_token().rsplit("-", 2)[0]
    left = store.directory / f".part-000001@{host}-99999999-00000000.tmp"
    left.touch()
    lock.touch()
    os.utime(lock, (50, 50))
    with store.in_use(), PartStore(store.directory, 4).in_use():
        assert not left.exists() and lock.stat().st_mtime > 50
        assert not remove_unused_parts(store.directory)
        assert store.read(0) == CONTENT
    assert remove_unused_parts(store.directory)
    assert not store.directory.exists()


def test_parts_of_an_older_version_without_a_lock_are_removed(store):
    store.write(0, CONTENT)
    assert remove_unused_parts(store.directory)
    assert not list(store.directory.parent.iterdir())


def test_those_who_work_on_parts_are_named_once(store):
    assert store.workers() == []
    with store.in_use(), Leases(store.directory) as leases:
        for part in store.claim(range(3), leases):
            assert store.workers() == [f"process {os.getpid()} on {platform.node()}"]
            if part == 2:
                store.write(part, CONTENT, leases=leases)
        assert store.missing() == [0, 1, 3]
        assert sorted(holders(store.directory)) == ["part-000000", "part-000001"]


def test_a_part_that_was_made_meanwhile_is_not_kept_from_others(store):
    store.write(0, CONTENT)
    with Leases(store.directory) as ours, Leases(store.directory) as theirs:
        assert list(store.claim([0], ours)) == []
        assert theirs.take("part-000000")


def test_a_store_that_is_removed_while_it_is_opened_is_said_to_be(store, monkeypatch):
    monkeypatch.setattr(
        "rela.pipeline.parts.clear_abandoned_files", lambda directory: shutil.rmtree(directory)
    )
    with pytest.raises(BusyError, match="was just removed"), store.in_use():
        pass


def test_a_store_is_made_where_no_folder_is(tmp_path):
    PartStore(tmp_path / "a" / "b", 1).write(0, CONTENT)
    with PartStore(tmp_path / "c" / "d", 1).in_use():
        assert (tmp_path / "c" / "d").is_dir()
    assert PartStore(tmp_path / "a" / "b", 1).read(0) == CONTENT


def test_a_store_without_parts_goes_with_the_work_that_failed(store):
    def fail():
        with store.in_use():
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        fail()
    assert not store.directory.exists()
    with store.in_use(), pytest.raises(ValueError, match="on purpose"):
        fail()  # of another process, say
    assert store.directory.is_dir()
    store.write(1, CONTENT)
    with pytest.raises(ValueError, match="on purpose"):
        fail()
    assert store.read(1) == CONTENT
