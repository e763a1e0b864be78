"""Records of identified priors: by request, so that a cache hit does not build a model.

Building a prior takes seconds to import libraries and read weights. A record is valid while the weights file
(inode, size, times) and the versions of the libraries are unchanged. It also holds the request, so that a
prior is found again by the name that tables show.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from msgspec import Struct, convert, to_builtins

from rela.pipeline.files import keep_record
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.manifest import installed_versions
from rela.priors import Prior, PriorIdentity, PriorRequest, packages
from rela.priors.checkpoint_file import PREFIX as FILE_PREFIX
from rela.stages.workspace.schema import load_json, read_json
from rela.stages.workspace.workspace import Workspace

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
    request: dict[str, Any] | None = None  # None in older records


def record_path(workspace: Workspace, request: PriorRequest) -> Path:
    """Where the record of a request is, or would be."""
    versions = installed_versions()
    name = request.name
    if name.startswith(FILE_PREFIX):  # a relative path depends on the current folder
        name = str(Path(name.removeprefix(FILE_PREFIX)).resolve())
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
        **({"file": 2} if request.weights or request.name.startswith(FILE_PREFIX) else {}),
        "versions": [versions.get(package) for package in ("rela", "torch", *packages())],
    }
    return workspace.prior_records_dir / f"{fingerprint(key)[:16]}.json"


def read_record(path: Path) -> tuple[PriorIdentity, str] | None:
    """The identity and the note of a valid record; None without one."""
    try:
        record = load_json(path, _Record)
        state = record.weights_file
        if state is not None and state != _file_state(Path(state.path)):
            return None
        return PriorIdentity.from_dict(record.prior), record.note
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(path: Path, request: PriorRequest, prior: Prior) -> None:
    """Record the prior that the request means."""
    file = prior.weights_file
    state = None if file is None else _file_state(file.absolute())
    if file is not None and request.weights is not None:
        request = replace(request, weights=file.absolute())
    elif file is not None and request.name.startswith(FILE_PREFIX):
        request = replace(request, name=f"{FILE_PREFIX}{file.absolute()}")
    asked = {**asdict(request), "weights": request.weights and str(request.weights)}
    record = to_builtins(_Record(prior.identity.as_dict(), state, prior.note, asked))
    keep_record(path, json.dumps(record, indent=1).encode())


def recorded_weights(workspace: Workspace, identity: PriorIdentity) -> Path | None:
    """The file that the weights of a prior came from, by its records; one that is still there first."""
    found = [
        Path(record.weights_file.path)
        for recorded, record in _records(workspace)
        if recorded == identity and record.weights_file is not None
    ]
    return max(found, key=Path.is_file, default=None)


def recorded_request(workspace: Workspace, identity: PriorIdentity) -> PriorRequest | None:
    """A request that meant this prior, without its trust in code; one whose file is still there first."""
    found = []
    for recorded, record in _records(workspace):
        if recorded == identity and record.request is not None:
            with contextlib.suppress(ValueError, TypeError):
                request = convert({**record.request, "trust_code": False}, PriorRequest)
                is_there = record.weights_file is None or Path(record.weights_file.path).is_file()
                found.append((is_there, request))
    return max(found, key=lambda pair: pair[0], default=(False, None))[1]


def recorded_identities(workspace: Workspace) -> list[PriorIdentity]:
    """Every prior that was identified in this workspace."""
    return [identity for identity, _ in _records(workspace)]


def _records(workspace: Workspace) -> Iterator[tuple[PriorIdentity, _Record]]:
    for path in sorted(workspace.prior_records_dir.glob("*.json")):
        record = read_json(path, _Record)
        if record is not None:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                yield PriorIdentity.from_dict(record.prior), record


def _file_state(path: Path) -> _FileState:
    found = path.stat()
    return _FileState(str(path), found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
