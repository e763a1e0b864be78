"""Artifacts, directories with files and a manifest: find, stage, publish."""

import contextlib
import errno
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from rela.pipeline.errors import (
    STORAGE_ERRORS,
    AlreadyPublishedError,
    CorruptArtifactError,
    StorageError,
    storage_remedy,
)
from rela.pipeline.files import fsync
from rela.pipeline.fingerprint import file_sha256
from rela.pipeline.locks import REMOVED_PREFIX
from rela.pipeline.manifest import Manifest, remedy
from rela.pipeline.owner import is_abandoned, owner_token

_STAGING_PREFIX = ".staging-"
_QUICK_BYTES = 1 << 28


@dataclass(frozen=True)
class Artifact:
    """A complete artifact: its directory and its manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def of(cls, artifact: "Artifact") -> Self:
        """The same artifact as one of a more specific class."""
        return cls(artifact.path, artifact.manifest)

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.path.name

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the content means."""
        return self.manifest.fingerprint

    def verify(self, most_bytes: float = math.inf) -> None:
        """Compare the digest of every file; raises CorruptArtifactError naming the first that differs.

        With `most_bytes`, files beyond so many bytes in all only have to be there.
        """
        for name in self.manifest.file_sha256:
            path = self.path / name
            most_bytes -= path.stat().st_size if path.is_file() else 0
            if most_bytes >= 0 or not path.is_file():
                self.sound_file(name)

    def verify_quickly(self) -> None:
        """As `verify`, in half a second: before saying that it exists, not before using it."""
        self.verify(_QUICK_BYTES)

    def sound_file(self, name: str) -> Path:
        """The path of one file, its digest compared; raises CorruptArtifactError if it differs."""
        path, expected = self.path / name, self.manifest.file_sha256.get(name)
        if expected is None or not path.is_file():
            raise CorruptArtifactError(f"{path} is missing from {self.path}; {remedy(self.path)}")
        found = file_sha256(path)
        if found != expected:
            raise CorruptArtifactError(
                f"{path} is damaged: SHA-256 {found[:12]}, expected {expected[:12]}; {remedy(self.path)}"
            )
        return path


A = TypeVar("A", bound=Artifact)


def open_artifact(path: Path) -> Artifact | None:
    """The artifact at `path`, or None if there is no complete one."""
    try:
        return Artifact(path, Manifest.read(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def find_artifacts(parent: Path) -> list[Artifact]:
    """Every complete artifact directly under `parent`, by name."""
    if not parent.is_dir():
        return []
    names = sorted(p for p in parent.iterdir() if not p.name.startswith("."))
    return [artifact for path in names if (artifact := open_artifact(path)) is not None]


@contextlib.contextmanager
def staging(destination: Path, option: str = "--workspace") -> Iterator[Path]:
    """A private directory beside `destination` to build in; removed unless it is published.

    Leftovers of killed jobs on this host are removed on entry. `option` names the place on the command line.
    """
    directory = destination.with_name(f"{_STAGING_PREFIX}{destination.name}@{owner_token()}")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        clear_abandoned(destination)
        directory.mkdir()
        yield directory
    except OSError as error:
        if error.errno in STORAGE_ERRORS:
            raise StorageError(
                f"cannot write under {destination.parent}: {error.strerror}; nothing was published; "
                f"{storage_remedy(error, option)}"
            ) from error
        raise
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def publish(directory: Path, destination: Path, manifest: Manifest) -> Artifact:
    """Turn a staged directory into the artifact `destination` in one rename.

    Digests every file into the manifest, makes bytes and names durable, and refuses to replace
    anything: raises AlreadyPublishedError if `destination` exists.
    """
    paths = sorted(directory.rglob("*"))
    digests = {str(p.relative_to(directory)): file_sha256(p) for p in paths if p.is_file()}
    for path in paths:  # also folders: they hold the names of files
        fsync(path)
    digests.update(manifest.file_sha256)
    complete = Manifest(**{**manifest.__dict__, "file_sha256": digests})
    complete.write(directory)
    try:
        if destination.exists():  # a rename would silently replace an empty directory
            raise FileExistsError(errno.EEXIST, "already there", str(destination))
        os.rename(directory, destination)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise AlreadyPublishedError(
                f"another job has just made {destination}; run the command again to use it, or choose "
                "another name"
            ) from error
        raise
    fsync(destination.parent)
    return Artifact(destination, complete)


def publish_or_adopt(directory: Path, destination: Path, manifest: Manifest) -> Artifact:
    """Publish, or take the artifact of a faster job with the same fingerprint."""
    try:
        return publish(directory, destination, manifest)
    except AlreadyPublishedError:
        other = open_artifact(destination)
        if other is None or other.fingerprint != manifest.fingerprint:
            raise
        return other


def cached(
    destination: Path,
    kind: type[A],
    find: Callable[[], A | None],
    fill: Callable[[Path], Manifest],
) -> tuple[A, bool]:
    """Return what `find` returns, else build `destination`; also whether it was found.

    `fill` writes files into a private directory and returns their manifest; they are published whole
    or not at all. Raises as `staging` and `publish_or_adopt`.
    """
    found = find()
    if found is not None:
        found.verify_quickly()
        clear_abandoned(found.path)
        return found, True
    with staging(destination) as directory:
        return kind.of(publish_or_adopt(directory, destination, fill(directory))), False


def abandoned(parent: Path, used_before: float = 0.0) -> list[Path]:
    """Leftovers of killed jobs directly under `parent`: staged or partly removed directories.

    On this host, those of ended processes; of other hosts, those older than `used_before` (seconds
    since 1970).
    """
    if not parent.is_dir():
        return []
    left = (p for p in parent.iterdir() if p.name.startswith((_STAGING_PREFIX, REMOVED_PREFIX)))
    return sorted(p for p in left if is_abandoned(p, used_before))


def clear_abandoned(destination: Path) -> None:
    """Remove what jobs of this host that have ended were making of `destination`, or removing.

    Called by `staging` and `cached`.
    """
    names = tuple(f"{prefix}{destination.name}@" for prefix in (_STAGING_PREFIX, REMOVED_PREFIX))
    for path in abandoned(destination.parent):
        if path.name.startswith(names):
            shutil.rmtree(path, ignore_errors=True)
