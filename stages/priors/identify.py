"""The identity of the prior for a request, cached so that a cache hit does not build a model.

Building a prior takes seconds to import libraries and read weights. Its identity is recorded by request.
The record is valid while the weights file (inode, size, times) and the versions of the libraries are
unchanged.
"""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins

from rela.errors import ChoiceError, DataError
from rela.pipeline.files import keep_record
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.manifest import installed_versions
from rela.priors import Prior, PriorIdentity, PriorRequest, as_requested, packages, resolve
from rela.priors.earlier_run import load_backbone, read_identity
from rela.priors.names import from_displayed_name
from rela.stages.workspace.schema import load_json, read_json
from rela.stages.workspace.workspace import Workspace

_RUN_PREFIX, _FILE_PREFIX = "run:", "file:"
_LATER = ("encoder", "resize", "interpolation", "mean", "std")  # absent in older keys if not set


class _FileState(Struct, frozen=True):
    path: str
    num_bytes: int
    inode: int
    mtime_ns: int
    ctime_ns: int


class _Record(Struct, frozen=True):
    prior: dict[str, Any]
    weights_file: _FileState | None
    note: str


@dataclass(frozen=True)
class KnownPrior:
    """An identity, and a function that loads the model.

    `note` describes what was found in the weights file.
    """

    identity: PriorIdentity
    load: Callable[[], Any]
    run: str | None = None
    note: str = ""


def identify(workspace: Workspace, request: PriorRequest, may_build: bool = True) -> KnownPrior:
    """The prior for `request`: an earlier run of this workspace, or a model by name.

    Without `may_build` nothing is built, downloaded or written, and a prior without a record raises
    ChoiceError.
    """
    if not workspace.has_run(request.name.removeprefix(_RUN_PREFIX)):
        request = from_displayed_name(request)
    name = request.name.removeprefix(_RUN_PREFIX)
    is_run = workspace.has_run(name) and request.weights is None
    if is_run or request.name.startswith(_RUN_PREFIX):
        run = workspace.run(name)
        if request.arch or request.seed or request.trust_code or request.encoder:
            raise ChoiceError(
                f"--arch, --encoder, --seed and --trust-code do not apply to the run {run.name}; remove them"
            )
        identity = read_identity(run.path)
        if request.resizes and request.image_size != identity.image_size:
            size = f"{identity.image_size}×{identity.image_size}"
            raise ChoiceError(
                f"the run {run.name} takes images of {size} pixels; remove --image-size"
            )
        found = Prior(identity, lambda: load_backbone(run.path, identity))
        found = as_requested(found, request)
        return KnownPrior(found.identity, found.load, run.name)
    record_path = _record_path(workspace, request)
    recorded = _read_record(record_path)
    if recorded is not None:
        known, note = recorded
        return KnownPrior(known, lambda: _load_recorded(request, known, record_path), note=note)
    if not may_build:
        raise ChoiceError(f"prior {request.name} has not been used in {workspace.root} yet")
    try:
        prior = resolve(request)
    except ChoiceError as error:
        run_names = ", ".join(run.name for run in workspace.runs())
        if run_names and ":" not in request.name:
            raise ChoiceError(f"{error} Runs of this workspace: {run_names}") from error
        raise
    file = prior.weights_file
    state = None if file is None else _file_state(file.absolute())
    record = to_builtins(_Record(prior.identity.as_dict(), state, prior.note))
    keep_record(record_path, json.dumps(record, indent=1).encode())
    return KnownPrior(prior.identity, prior.load, note=prior.note)


def recorded_weights(workspace: Workspace, identity: PriorIdentity) -> Path | None:
    """The file that the weights of a prior came from, by its records; one that is still there first."""
    found = []
    for path in sorted(workspace.prior_records_dir.glob("*.json")):
        record = read_json(path, _Record)
        if record is None or record.weights_file is None:
            continue
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if PriorIdentity.from_dict(record.prior) == identity:
                found.append(Path(record.weights_file.path))
    return max(found, key=Path.is_file, default=None)


def _load_recorded(request: PriorRequest, recorded: PriorIdentity, record_path: Path) -> Any:
    """Build the prior; raise DataError and delete the record if it is not the recorded one."""
    prior = resolve(request)
    if prior.identity.key() != recorded.key():
        record_path.unlink(missing_ok=True)
        raise DataError(
            f"the weights of {request.name} were replaced without a new modification time; their record "
            "is deleted, run the same command again"
        )
    return prior.load()


def _record_path(workspace: Workspace, request: PriorRequest) -> Path:
    versions = installed_versions()
    name = request.name
    if name.startswith(_FILE_PREFIX):  # a relative path depends on the current folder
        name = str(Path(name.removeprefix(_FILE_PREFIX)).resolve())
    key = {
        "name": name,
        "weights": None if request.weights is None else str(request.weights.resolve()),
        "seed": request.seed,
        "image_size": request.image_size,
        "arch": request.arch,
        "layer": request.layer,
        "trust_code": request.trust_code,
        **({"resizes": True} if request.resizes else {}),
        **{name: value for name in _LATER if (value := getattr(request, name)) is not None},
        # before, files had other preprocessing
        **({"file": 2} if request.weights or request.name.startswith(_FILE_PREFIX) else {}),
        "versions": [versions.get(package) for package in ("rela", "torch", *packages())],
    }
    return workspace.prior_records_dir / f"{fingerprint(key)[:16]}.json"


def _read_record(path: Path) -> tuple[PriorIdentity, str] | None:
    """The identity and the note of a valid record; None without one."""
    try:
        record = load_json(path, _Record)
        state = record.weights_file
        if state is not None and state != _file_state(Path(state.path)):
            return None
        return PriorIdentity.from_dict(record.prior), record.note
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file_state(path: Path) -> _FileState:
    found = path.stat()
    return _FileState(str(path), found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
