"""Where an export is written: whole or not at all, and over another one only with --force."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from rela.errors import ChoiceError
from rela.pipeline.artifact import Artifact, open_artifact, publish, staging
from rela.pipeline.files import directory_bytes
from rela.pipeline.locks import REMOVED_PREFIX
from rela.pipeline.manifest import Manifest
from rela.pipeline.owner import owner_token
from rela.stages.output import OPTION, require_folder, written
from rela.stages.settings import ExportSettings

KIND = "export"  # of the manifest in a folder
_WEIGHTS = (".pth", ".pt", ".safetensors")
_SUFFIXES: dict[str, tuple[str, ...]] = {  # the first is the default; a folder has none
    "torchvision": _WEIGHTS,
    "timm": (".safetensors", ".pth", ".pt"),
    "safetensors": (".safetensors",),
    "onnx": (".onnx",),
    "hdf5-features": (".h5", ".hdf5"),
    "parquet": (".parquet",),
    "npy": (),
    "faiss": (),
}
_ENDINGS = {"safetensors": "", "onnx": "", "hdf5-features": "-features", "parquet": "-features"}


def destination(name: str, settings: ExportSettings) -> Path:
    """The file or folder to write for a run or prior of this name.

    Raises ChoiceError if it exists or has the suffix of another format, and as `require_folder`.
    """
    suffixes, to = _SUFFIXES[settings.to], settings.to
    default = f"{name}{_ENDINGS.get(to, f'-{to}')}{suffixes[0] if suffixes else ''}"
    path = Path(settings.output or default)
    if path.is_dir() and not (settings.output and not suffixes and _export_at(path)):
        path = path / default if settings.output else path
    if suffixes and path.suffix not in suffixes:
        raise ChoiceError(
            f"--output {path}: expected a name ending in {' or '.join(suffixes)} for --to {to}"
        )
    if path.parent.is_file():
        raise ChoiceError(f"--output {path}: {path.parent} is a file; choose another folder")
    require_folder(path)
    is_ours = path.is_file() if suffixes else _export_at(path) is not None
    if path.exists() and not is_ours:
        raise ChoiceError(
            f"{path} already exists and is no {'file' if suffixes else 'exported folder'}; choose another "
            "--output"
        )
    if path.exists() and not settings.force:
        raise ChoiceError(
            f"{path} already exists; choose another --output, or replace it with --force"
        )
    return path


def num_bytes_of(path: Path) -> int:
    """Size of a file or a folder."""
    return directory_bytes(path) if path.is_dir() else path.stat().st_size


@contextmanager
def writing(path: Path, settings: ExportSettings, manifest: Manifest) -> Iterator[Path]:
    """Yield the file or the folder to write; it becomes `path` if the body succeeds.

    A folder holds `manifest` beside what is written. Raises StorageError if writing fails, and
    AlreadyPublishedError, without --force, if `path` exists by then.
    """
    if _SUFFIXES[settings.to]:
        with written(path, clobber=settings.force) as temporary:
            yield temporary
        return
    with staging(path, OPTION) as directory:
        yield directory
        with _set_aside(path) if settings.force else nullcontext():
            publish(directory, path, manifest)


@contextmanager
def _set_aside(path: Path) -> Iterator[None]:
    """Move the exported folder at `path`, if there is one, away for the body, and back if that makes none.

    If this process is killed, the next export to `path` removes it.
    """
    hidden = path.with_name(f"{REMOVED_PREFIX}{path.name}@{owner_token()}")
    if _export_at(path):
        with suppress(FileNotFoundError):  # another job has just done so
            os.rename(path, hidden)
    is_made = False
    try:
        yield
        is_made = True
    finally:
        if is_made or path.exists():  # by another job
            shutil.rmtree(hidden, ignore_errors=True)
        else:
            with suppress(FileNotFoundError):
                os.rename(hidden, path)


def _export_at(path: Path) -> Artifact | None:
    """The exported folder at `path`, which holds nothing else."""
    found = open_artifact(path) if path.is_dir() else None
    return found if found is not None and found.manifest.kind == KIND else None
