"""Files (rela.pipeline.files).

Covers: the order of system calls that makes a replaced file survive a power cut; pipes, devices, folders,
sockets and links to them are refused at once, for reading and writing; files are read as they are, also by
a link, unless they are one's own; what is too large is not read.
"""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from disk_calls import disk_calls

from rela.pipeline.errors import AlreadyPublishedError, StorageError
from rela.pipeline.files import (
    clear_abandoned_files,
    directory_bytes,
    keep_record,
    own_file,
    read_regular,
    regular_file,
    replace_file,
    replacing,
    temporary_of,
    write_atomic,
)
from rela.pipeline.owner import owner_token

__all__ = ["disk_calls"]  # a fixture


def test_bytes_are_on_the_disk_before_the_name_and_the_name_on_return(
    tmp_path: Path, disk_calls: list[str]
) -> None:
    for _ in range(2):
        write_atomic(tmp_path / "a", b"1")
    assert disk_calls == ["fsync .a", "replace .a a", f"fsync {tmp_path.name}"] * 2


@pytest.mark.parametrize("has_links", [True, False])
def test_a_new_file_is_durable_with_and_without_hard_links(
    tmp_path: Path, disk_calls: list[str], monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def refuse(source: Path, destination: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    with replacing(tmp_path / "a", clobber=False) as temporary:
        temporary.write_bytes(b"1")
    moved = f"{'link' if has_links else 'rename'} .a a"
    assert disk_calls == ["fsync .a", moved, f"fsync {tmp_path.name}"]


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


OTHERS: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a socket": make_socket,
    "a link to a pipe": link_to_pipe,
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("mode", ["rb", "ab", "wb", "rb+"])
@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.timeout(10)
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], None], mode: str
) -> None:
    make(tmp_path / "a")
    for opener in (regular_file, own_file):
        with pytest.raises(OSError, match=str(tmp_path)), open(tmp_path / "a", mode, opener=opener):
            pass


@pytest.mark.parametrize("found", ["a pipe", "a folder", "a device"])
def test_what_was_found_is_named(tmp_path: Path, found: str) -> None:
    OTHERS[found](tmp_path / "a")
    with pytest.raises(OSError, match=f"found {found}.*expected a regular file.*{tmp_path}"):
        read_regular(tmp_path / "a")


def test_files_are_read_by_links_and_not_written_by_them(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "a").symlink_to("file")
    (tmp_path / "b").symlink_to("nowhere")
    assert read_regular(tmp_path / "a") == b"12345"
    for name, mode in (("a", "rb"), ("a", "ab"), ("a", "wb"), ("b", "wb")):
        with (
            pytest.raises(OSError, match="found a link"),
            open(tmp_path / name, mode, opener=own_file),
        ):
            pass
    assert (tmp_path / "file").read_bytes() == b"12345"
    assert not (tmp_path / "nowhere").exists()


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"12345")
    assert read_regular(tmp_path / "small", most_bytes=5) == b"12345"
    with pytest.raises(OSError, match="found 5 bytes, expected at most 4"):
        read_regular(tmp_path / "small", most_bytes=4)
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="found 1,099,511,627,776 bytes, expected at most 67,108,864"):
        read_regular(tmp_path / "sparse")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
@pytest.mark.parametrize("where", ["mkdir", "open"])
def test_a_record_is_not_kept_where_one_may_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, where: str
):
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "old").write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(*((Path, "mkdir") if where == "mkdir" else (os, "replace")), refused)
        keep_record(tmp_path / "old", b"new")
        keep_record(tmp_path / "folder" / "new", b"new")
    assert (tmp_path / "old").read_bytes() == b"old"
    keep_record(tmp_path / "folder" / "new", b"new")
    assert (tmp_path / "folder" / "new").read_bytes() == b"new"


def test_a_record_on_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="No space left"):
        keep_record(tmp_path / "new", b"new")


def test_a_new_file_has_the_permissions_that_the_user_wants(tmp_path: Path):
    before = os.umask(0o002)
    try:
        with open(tmp_path / "new", "w", opener=regular_file):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o664


def test_the_bytes_of_a_directory_are_those_of_all_its_files(tmp_path: Path):
    (tmp_path / "deep" / "down").mkdir(parents=True)
    assert directory_bytes(tmp_path) == 0
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "deep" / "down" / "b").write_bytes(b"123")
    assert directory_bytes(tmp_path) == 8
    (tmp_path / "gone").symlink_to("nowhere")
    assert directory_bytes(tmp_path) == 8


@pytest.mark.parametrize(
    "name", ["a", "a@host", "temporary.tmp", ".a.tmp", ".a@elsewhere~1-1-00000000.tmp"]
)
def test_only_what_a_dead_process_left_is_cleared(tmp_path: Path, name: str):
    host = owner_token().rsplit("-", 2)[0]
    left, ours = tmp_path / f".a@{host}-99999999-00000000.tmp", tmp_path / f".a@{owner_token()}.tmp"
    for path in (left, ours, tmp_path / name):
        path.touch()
    clear_abandoned_files(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([ours, tmp_path / name])


def test_what_another_process_clears_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rela.pipeline.files.is_abandoned", lambda path: path.unlink() or True)
    (tmp_path / ".a.tmp").touch()
    clear_abandoned_files(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_quick_replacement_is_whole_and_leaves_no_temporary_file(tmp_path: Path):
    path, letter = tmp_path / "a", tmp_path / "letter"
    letter.write_bytes(b"Dear Sir")
    temporary_of(path).symlink_to(letter)
    for content in (b"1", b"234"):
        replace_file(path, content)
        assert path.read_bytes() == content
    assert letter.read_bytes() == b"Dear Sir"
    assert sorted(tmp_path.iterdir()) == [path, letter]


def test_without_hard_links_nothing_is_replaced_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(source: Path, destination: Path) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_bytes(b"old")
    with (
        pytest.raises(AlreadyPublishedError, match="another job has just made"),
        replacing(tmp_path / "a", clobber=False) as temporary,
    ):
        temporary.write_bytes(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
