"""Artifacts.

Covers: publishing is one step, durable and never replaces anything; staging directories are private, cleared
when their process is dead and kept when it lives; files are replaced atomically, and a full disk keeps the
old content.
"""

import builtins
import errno
import hashlib
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from disk_calls import disk_calls
from manifests import MANIFEST

from rela.pipeline.artifact import (
    Artifact,
    abandoned,
    cached,
    clear_abandoned,
    find_artifacts,
    open_artifact,
    publish,
    publish_or_adopt,
    staging,
)
from rela.pipeline.errors import AlreadyPublishedError, CorruptArtifactError, StorageError
from rela.pipeline.files import write_atomic
from rela.pipeline.fingerprint import file_sha256
from rela.pipeline.manifest import Manifest

__all__ = ["disk_calls"]  # a fixture


def no_space(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "house" / "room"


def publish_one(destination: Path, manifest: Manifest = MANIFEST, text: str = "hello"):
    with staging(destination) as directory:
        (directory / "file.txt").write_text(text)
        return publish(directory, destination, replace(manifest, file_sha256={}))


def left_by_a_killed_job(destination: Path, pid: int | None = None) -> Path:
    """The staging directory of a process of this host that ended, or as process `pid` would leave it."""
    code = (
        "import os, pathlib, sys; from rela.pipeline.artifact import staging;"
        "context = staging(pathlib.Path(sys.argv[1]));"
        "print(os.getpid(), context.__enter__(), flush=True); os._exit(9)"
    )
    command = [sys.executable, "-c", code, destination]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    dead_pid, left = process.stdout.split()
    return Path(left).rename(left.replace(f"-{dead_pid}-", f"-{pid or dead_pid}-"))


# Staging and publishing


def test_nothing_is_visible_until_it_is_published(destination):
    with staging(destination) as directory:
        (directory / "file.txt").write_text("half")
        assert not destination.exists()
        assert find_artifacts(destination.parent) == []
        publish(directory, destination, MANIFEST)
        assert (destination / "file.txt").read_text() == "half"
    assert [artifact.name for artifact in find_artifacts(destination.parent)] == ["room"]
    assert [path.name for path in destination.parent.iterdir()] == ["room"]


def test_an_artifact_opens_with_what_was_published(destination):
    made = publish_one(destination)
    opened = open_artifact(destination)
    assert opened == made and opened.fingerprint == MANIFEST.fingerprint
    assert opened.manifest.file_sha256 == {"file.txt": file_sha256(destination / "file.txt")}


def test_a_published_artifact_verifies_until_a_file_changes(destination):
    artifact = publish_one(destination)
    artifact.verify()
    path = destination / "file.txt"
    path.write_text("hellp")
    was, found = (hashlib.sha256(text).hexdigest()[:12] for text in (b"hello", b"hellp"))
    remedy = f"remove it with `rela rm {destination} --force`; run the command that made it again"
    with pytest.raises(CorruptArtifactError) as caught:
        artifact.verify()
    assert str(caught.value) == f"{path} is damaged: SHA-256 {found}, expected {was}; {remedy}"
    path.unlink()
    with pytest.raises(CorruptArtifactError) as caught:
        artifact.verify()
    assert str(caught.value) == f"{path} is missing from {destination}; {remedy}"


def test_files_in_folders_are_part_of_the_artifact(destination):
    with staging(destination) as directory:
        (directory / "deep" / "down").mkdir(parents=True)
        (directory / "deep" / "down" / "file").write_bytes(b"x")
        artifact = publish(directory, destination, replace(MANIFEST, file_sha256={}))
    assert list(artifact.manifest.file_sha256) == ["deep/down/file"]
    (destination / "deep" / "down" / "file").write_bytes(b"y")
    with pytest.raises(CorruptArtifactError):
        artifact.verify()


def test_an_exception_leaves_nothing(destination):
    def build():
        with staging(destination) as directory:
            (directory / "file.txt").write_text("half")
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        build()
    assert list(destination.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "is_still"),
    [
        (publish_one, lambda path: (path / "file.txt").read_text() == "hello"),
        (lambda path: path.write_text("mine"), lambda path: path.read_text() == "mine"),
        (lambda path: (path / "part").mkdir(parents=True), lambda path: (path / "part").is_dir()),
        (Path.mkdir, lambda path: not list(path.iterdir())),  # a rename would replace it
        (lambda path: path.symlink_to(path.parent), lambda path: path.is_symlink()),
    ],
)
def test_publishing_replaces_nothing(destination, make, is_still):
    destination.parent.mkdir()
    make(destination)
    with pytest.raises(AlreadyPublishedError, match="another job has just made"):
        publish_one(destination, text="second")
    assert is_still(destination)
    assert [path.name for path in destination.parent.iterdir()] == ["room"]


def adopt(destination: Path, fingerprint: str = MANIFEST.fingerprint) -> Artifact:
    with staging(destination) as directory:
        (directory / "file.txt").write_text("second")
        return publish_or_adopt(directory, destination, replace(MANIFEST, fingerprint=fingerprint))


def test_the_slower_of_two_equal_jobs_adopts_the_first_result(destination):
    first = publish_one(destination, text="first")
    assert adopt(destination) == first
    assert (destination / "file.txt").read_text() == "first"


def test_what_is_another_result_or_unfinished_is_not_adopted(destination):
    publish_one(destination.with_name("other"), text="first")
    with pytest.raises(AlreadyPublishedError):
        adopt(destination.with_name("other"), fingerprint="00" * 32)
    (destination / "something").mkdir(parents=True)
    with pytest.raises(AlreadyPublishedError):
        adopt(destination)
    assert (destination / "something").is_dir()


def test_what_is_found_is_not_built_again(destination):
    def fill(directory: Path) -> Manifest:
        (directory / "file.txt").write_text("hello")
        filled.append(directory)
        return replace(MANIFEST, file_sha256={})

    filled: list[Path] = []
    for expected in (False, True):
        made, was_there = cached(destination, Artifact, lambda: open_artifact(destination), fill)
        assert was_there is expected
        assert made == open_artifact(destination)
    assert len(filled) == 1
    made, was_there = cached(destination, Artifact, lambda: None, fill)  # another was faster
    assert (made, was_there) == (open_artifact(destination), False)
    assert [path.name for path in destination.parent.iterdir()] == [destination.name]


def test_two_staging_directories_of_one_destination_are_apart(destination):
    with staging(destination) as one, staging(destination) as other:
        assert one != other and one.is_dir() and other.is_dir()


def test_what_a_killed_job_left_is_cleared_and_what_others_build_is_kept(destination):
    of_a_living_job = left_by_a_killed_job(destination, os.getpid())
    for_another_destination = left_by_a_killed_job(destination.with_name("room2"))
    of_another_host = left_by_a_killed_job(destination)
    of_another_host = of_another_host.rename(
        str(of_another_host).replace(platform.node(), "elsewhere")
    )
    left = left_by_a_killed_job(destination)
    assert left.is_dir()
    with staging(destination):
        assert not left.exists()
        for theirs in (of_a_living_job, for_another_destination, of_another_host):
            assert theirs.is_dir()
    assert of_a_living_job.is_dir()


def test_what_another_job_clears_meanwhile_is_no_error(destination, monkeypatch):
    gone = destination.with_name(f".staging-{destination.name}@elsewhere-1-0a1b2c3d")
    monkeypatch.setattr("rela.pipeline.artifact.abandoned", lambda parent: [gone])
    clear_abandoned(destination)


def test_what_another_host_left_is_abandoned_by_its_age_alone(tmp_path):
    left = tmp_path / ".staging-room@elsewhere~1-5-0a1b2c3d"
    left.mkdir()
    os.utime(left, (0.5, 0.5))
    assert abandoned(tmp_path) == [] == abandoned(tmp_path, 0.5)
    assert abandoned(tmp_path, 0.6) == [left]
    assert abandoned(tmp_path / "nothing") == []


def test_artifacts_are_found_by_name_and_others_are_not(tmp_path):
    for name in ("b", "a", "c"):
        publish_one(tmp_path / "all" / name)
    (tmp_path / "all" / "unfinished").mkdir()
    (tmp_path / "all" / "file").write_text("")
    assert [artifact.name for artifact in find_artifacts(tmp_path / "all")] == ["a", "b", "c"]
    assert find_artifacts(tmp_path / "none") == []


# A full disk


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new and longer")
    assert path.read_bytes() == b"new and longer"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("where", ["open", "fsync", "replace"])
def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch, where):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    monkeypatch.setattr(builtins if where == "open" else os, where, no_space)
    with pytest.raises(StorageError, match="No space left") as caught:
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("where", ["fsync", "rename"])
def test_a_full_disk_publishes_nothing(destination, monkeypatch, where):
    monkeypatch.setattr(os, where, no_space)
    with pytest.raises(StorageError, match="No space left"):
        publish_one(destination)
    monkeypatch.undo()
    assert list(destination.parent.iterdir()) == []


def test_a_full_disk_while_building_is_a_storage_error(destination):
    with pytest.raises(StorageError, match="nothing was published"), staging(destination):
        no_space()
    assert list(destination.parent.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named_with_its_option(destination, monkeypatch):
    monkeypatch.setattr(os, "mkdir", no_space)
    with (
        pytest.raises(StorageError, match="choose another --output"),
        staging(destination, "--output"),
    ):
        raise AssertionError("nothing is built")


def test_a_real_full_device_is_a_storage_error(destination):
    with pytest.raises(StorageError, match="No space left"), staging(destination):
        Path("/dev/full").write_bytes(b"x")


def test_other_errors_while_building_stay_what_they_are(destination):
    with pytest.raises(FileNotFoundError), staging(destination) as directory:
        (directory / "missing").read_bytes()


def test_what_is_found_finished_is_rid_of_what_others_left(destination):
    publish_one(destination)
    living = left_by_a_killed_job(destination, os.getpid())
    left = left_by_a_killed_job(destination)
    removed = left_by_a_killed_job(destination)
    removed = removed.rename(str(removed).replace(".staging-", ".removed-"))
    clear_abandoned(destination)
    assert not left.exists() and not removed.exists() and living.exists()


def test_publishing_syncs_files_and_folders_then_the_manifest_then_the_name(
    tmp_path: Path, disk_calls: list[str]
) -> None:
    with staging(tmp_path / "x") as directory:
        (directory / "deep" / "down").mkdir(parents=True)
        for name in ("a", "b", "deep/down/c"):
            (directory / name).write_text(name)
        publish(directory, tmp_path / "x", replace(MANIFEST, file_sha256={}))
    entries, rest = disk_calls[:5], disk_calls[5:]
    assert sorted(entries) == [f"fsync {name}" for name in ("a", "b", "c", "deep", "down")]
    assert rest == [
        "fsync .manifest.json", "replace .manifest.json manifest.json", "fsync .staging-x",
        "rename .staging-x x", f"fsync {tmp_path.name}",
    ]  # fmt: skip
