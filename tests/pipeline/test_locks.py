"""One job at a time in a directory (rela.pipeline.locks).

Covers: a second job is told who holds it, and so is a process that only looks; looking does not block; a
clean-up asks again under the lock; the lock ends with its body and with a killed holder; on file systems
without locks a lease takes its place; other errors come through.
"""

import contextlib
import errno
import fcntl
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest

from rela.pipeline.errors import BusyError
from rela.pipeline.locks import (
    NO_LOCKS,
    _lock_soon,
    exclusive,
    in_use,
    is_held,
    last_used,
    mark_used,
    remove_if_free,
    remove_unused,
)
from rela.pipeline.locks import holder as who_holds

HOLD = """
import sys, time
from pathlib import Path
from rela.pipeline.locks import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def before_flock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """before_flock(act): do that before every lock, and the lock unless that raises."""
    flock = fcntl.flock

    def set_act(act: Callable[[], object]) -> None:
        monkeypatch.setattr(fcntl, "flock", lambda *arguments: (act(), flock(*arguments)))

    return set_act


def fail_with(number: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


@contextlib.contextmanager
def known_holder(lock: Path):
    assert who_holds(lock) == f"process {os.getpid()} on {platform.node()}"
    yield
    assert who_holds(lock) == f"process {os.getpid()} on {platform.node()}"


def test_nobody_holds_what_is_not_there(tmp_path: Path):
    assert who_holds(tmp_path / ".lock") is None
    assert not list(tmp_path.iterdir())


def test_those_who_look_stop_nobody(tmp_path: Path):
    lock, looking = tmp_path / ".lock", threading.Event()

    def look() -> None:
        with open(lock) as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            looking.set()
            time.sleep(0.03)

    lock.touch()
    looker = threading.Thread(target=look)
    looker.start()
    looking.wait()
    with exclusive(lock):
        looker.join()


def test_another_process_is_named_until_it_is_killed(tmp_path: Path):
    lock = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, lock], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=f"in use by process {holder.pid}"), exclusive(lock):
            pass
        assert who_holds(lock) == f"process {holder.pid} on {platform.node()}"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert who_holds(lock) is None
        with exclusive(lock):
            assert lock.read_text() == f"process {os.getpid()} on {platform.node()}"


@pytest.mark.parametrize("number", NO_LOCKS)
def test_without_locks_a_lease_does(tmp_path: Path, before_flock, number: int):
    before_flock(fail_with(number))
    for _ in range(2):
        with (
            exclusive(tmp_path / ".lock"),
            known_holder(tmp_path / ".lock"),
            pytest.raises(BusyError, match=f"process {os.getpid()}"),
            exclusive(tmp_path / ".lock"),
        ):
            pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_other_errors_come_through(tmp_path: Path, before_flock):
    before_flock(fail_with(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"), exclusive(tmp_path / ".lock"):
        pass


def test_a_lock_that_leads_elsewhere_is_not_followed(tmp_path: Path):
    (tmp_path / "letter").write_text("Dear Sir")
    (tmp_path / ".lock").symlink_to("letter")
    for look in (
        lambda: exclusive(tmp_path / ".lock").__enter__(),
        lambda: who_holds(tmp_path / ".lock"),
    ):
        with pytest.raises(OSError, match="found a link"):
            look()
    assert (tmp_path / "letter").read_text() == "Dear Sir"


def test_what_a_lock_says_is_one_line(tmp_path: Path):
    with exclusive(tmp_path / ".lock"):
        (tmp_path / ".lock").write_bytes(b"process 1\n\x1b[2Jon \xff")
        assert who_holds(tmp_path / ".lock") == "process 1??[2Jon \N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("made_again", [False, True])
def test_the_lock_of_a_directory_that_was_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_again: bool
):
    directory = tmp_path / "run"
    directory.mkdir()

    def remove_first(file: TextIO) -> bool:
        assert remove_if_free(directory / ".lock")
        if made_again:
            directory.mkdir()
            (directory / ".lock").touch()
        return _lock_soon(file)

    monkeypatch.setattr("rela.pipeline.locks._lock_soon", remove_first)
    with pytest.raises(BusyError, match="was just removed"), exclusive(directory / ".lock"):
        pass


def test_a_directory_that_is_not_there_has_no_lock(tmp_path: Path):
    with (
        pytest.raises(BusyError, match="was just removed"),
        exclusive(tmp_path / "run" / ".lock"),
    ):
        pass


def test_what_was_made_again_where_another_was_removed_stays(tmp_path: Path, before_flock):
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / ".lock").touch()

    def replace() -> None:
        directory.rename(tmp_path / "removed")
        directory.mkdir()
        (directory / ".lock").touch()

    before_flock(replace)
    assert not remove_if_free(directory / ".lock")
    assert directory.is_dir()


def test_a_clean_up_asks_again_while_it_holds_the_lock(tmp_path: Path):
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / ".lock").touch()

    def is_locked() -> bool:
        with open(directory / ".lock") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        return True

    assert not remove_if_free(directory / ".lock", lambda: not is_locked())
    assert directory.is_dir()
    assert remove_if_free(directory / ".lock", is_locked)
    assert not list(tmp_path.iterdir())


def test_a_directory_is_removed_after_its_files_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """NFS renames an open file instead of removing it, so that its directory cannot be removed."""
    directory = tmp_path / "artifact"
    directory.mkdir()
    (directory / "manifest.json").touch()
    rmtree, open_below = shutil.rmtree, []

    def watched(path: Path) -> None:
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                open_below.extend(p for p in path.iterdir() if descriptor.readlink() == p)
        rmtree(path)

    monkeypatch.setattr(shutil, "rmtree", watched)
    with open(directory / "manifest.json"):
        watched_directory = directory.rename(tmp_path / "noticed")
        watched(watched_directory)
    assert [path.name for path in open_below] == ["manifest.json"]  # it would be noticed
    open_below.clear()
    directory.mkdir()
    (directory / "manifest.json").touch()
    assert remove_if_free(directory / "manifest.json")
    assert not open_below and not list(tmp_path.iterdir())


def test_an_artifact_that_is_used_just_before_it_is_locked_stays(tmp_path: Path, before_flock):
    directory = tmp_path / "artifact"
    directory.mkdir()
    (directory / "manifest.json").touch()
    os.utime(directory / "manifest.json", (1, 1))

    before_flock(lambda: mark_used(directory))
    assert not remove_unused(directory, used_before=100.0)
    assert directory.is_dir()


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A directory with a manifest that was last used in 1970."""
    directory = tmp_path / "artifact"
    directory.mkdir()
    (directory / "manifest.json").touch()
    os.utime(directory / "manifest.json", (50, 50))
    return directory


def test_what_is_in_use_is_held_marked_and_not_removed(artifact: Path, tmp_path: Path):
    other = Path(shutil.copytree(artifact, tmp_path / "other"))
    before = time.time()
    with in_use(artifact, other), in_use(artifact):
        for directory in (artifact, other):
            assert is_held(directory) and last_used(directory) >= before - 1
            assert not remove_unused(directory, used_before=before + 1000)
    assert not is_held(artifact)
    assert not remove_unused(artifact, used_before=before - 1000) and artifact.is_dir()
    assert remove_unused(artifact, used_before=before + 1000)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_an_artifact_that_was_last_used_at_the_limit_stays(artifact: Path):
    assert last_used(artifact) == 50
    assert not remove_unused(artifact, used_before=50)
    assert remove_unused(artifact, used_before=50.1)


def test_an_artifact_that_was_removed_cannot_be_used(artifact: Path, before_flock):
    removed = f"{artifact} was just removed; run the command again"
    with pytest.raises(BusyError) as caught, in_use(artifact.with_name("nothing")):
        pass
    assert str(caught.value) == removed.replace(str(artifact), str(artifact.with_name("nothing")))
    before_flock(lambda: shutil.rmtree(artifact))
    with pytest.raises(BusyError) as caught, in_use(artifact):
        pass
    assert str(caught.value) == removed


@pytest.mark.parametrize("number", NO_LOCKS)
def test_without_locks_artifacts_are_used_and_nothing_is_removed(
    artifact: Path, before_flock, number: int
):
    before_flock(fail_with(number))
    with in_use(artifact):
        assert last_used(artifact) > 50
    assert not is_held(artifact)
    assert not remove_unused(artifact, used_before=math.inf) and artifact.is_dir()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_what_may_not_be_written_is_not_removed(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    monkeypatch.setattr("builtins.open", lambda *_, **__: fail_with(number)())
    assert not is_held(artifact)
    assert not remove_unused(artifact, used_before=math.inf)


def test_other_errors_of_a_clean_up_come_through(artifact: Path, before_flock):
    with pytest.raises(FileNotFoundError):
        remove_if_free(artifact / ".lock")
    before_flock(fail_with(errno.EIO))
    for act in (
        lambda: remove_if_free(artifact / "manifest.json"),
        lambda: who_holds(artifact / "manifest.json"),
        lambda: in_use(artifact).__enter__(),
    ):
        with pytest.raises(OSError, match="Input/output error"):
            act()


def test_a_lock_that_is_held_is_tried_for_a_short_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slept: list[float] = []
    with exclusive(tmp_path / ".lock"):
        monkeypatch.setattr(time, "sleep", slept.append)
        with pytest.raises(BusyError) as caught, exclusive(tmp_path / ".lock"):
            pass
    holder = f"process {os.getpid()} on {platform.node()}"
    assert str(caught.value) == f"{tmp_path} is in use by {holder}; wait for it to end"
    assert len(slept) > 1 and 0.1 <= sum(slept) <= 0.2


def test_of_a_long_or_empty_lock_file_a_line_is_shown(tmp_path: Path):
    lock = tmp_path / ".lock"
    with exclusive(lock):
        for written, shown in (
            ("", "another process"),
            (" \n", "another process"),
            ("x" * 999, "x" * 200),
        ):
            lock.write_text(written)
            assert who_holds(lock) == shown
