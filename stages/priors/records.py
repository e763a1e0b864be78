"""Records of identified priors: by request, so that a cache hit does not build a model.

Building a prior takes seconds to import libraries and read weights. A record is valid while the weights file
(inode, size, times) and the versions of the libraries are unchanged. It also holds the request, so that a
prior is found again by the name that tables show.
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from msgspec import Struct, convert, structs, to_builtins

from rela.models.own_code.plugins import PREFIX as PLUGIN_PREFIX
from rela.models.own_code.plugins import PRIORS, identified
from rela.pipeline.files import keep_record
from rela.pipeline.fingerprint import file_sha256, fingerprint
from rela.pipeline.manifest import installed_versions
from rela.priors import Prior, PriorIdentity, PriorRequest, packages
from rela.priors.checkpoint_file import PREFIX as FILE_PREFIX
from rela.priors.prior import Combination
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.schema import load_json, read_json
from rela.stages.workspace.workspace import Workspace

Known = tuple[PriorIdentity, str | None]  # with the name of the run that it is, if any
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
    request: dict[str, Any] | None = None  # None in older records, as is the next
    file_sha256: str | None = None


def priors_of(representations: Representations) -> list[Known]:
    """The prior that made them, or the components of a combination."""
    made, content = representations.prior, representations.content
    if isinstance(made, Combination):
        runs = [component.run for component in content.components]
        return list(zip(made.components, runs, strict=True))
    return [(made, content.run)]


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
        **({"plugin": identified(PRIORS, name)} if name.startswith(PLUGIN_PREFIX) else {}),
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
    digest = None if file is None else file_sha256(file)
    record = to_builtins(_Record(prior.identity.as_dict(), state, prior.note, asked, digest))
    keep_record(path, json.dumps(record, indent=1).encode())


def recorded_weights(workspace: Workspace, identity: PriorIdentity) -> Path | None:
    """The file that the weights of a prior came from, by its records; one that is still there first."""
    found = [
        Path(record.weights_file.path)
        for recorded, record in _records(workspace)
        if recorded == identity and record.weights_file is not None
    ]
    return max(found, key=Path.is_file, default=None)


def recorded_of_file(
    workspace: Workspace, path: Path, changed: bool = False
) -> list[PriorIdentity]:
    """The priors with the weights of this file, as it is now; if it is gone or `changed`, as it was.

    A file at another path is the same if it has the same bytes.
    """
    now = _file_state(path) if path.is_file() else None
    digest = functools.cache(lambda: file_sha256(path))
    found = []
    for identity, record in _records(workspace):
        then = record.weights_file
        if then is None:
            continue
        is_there = Path(then.path).resolve() == path.resolve()
        if now is None or changed or (is_there and now == structs.replace(then, path=now.path)):
            same = is_there
        else:
            same = then.num_bytes == now.num_bytes and record.file_sha256 == digest()
        if same:
            found.append(identity)
    return found


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


def known_identities(workspace: Workspace, runs: bool = False) -> Iterator[PriorIdentity]:
    """Every prior of cached representations, or of a record; those of `runs` if asked for."""
    for made in workspace.representations():
        for identity, run in priors_of(made):
            if runs or run is None:
                yield identity
    yield from (identity for identity, _ in _records(workspace))


def _records(workspace: Workspace) -> Iterator[tuple[PriorIdentity, _Record]]:
    for path in sorted(workspace.prior_records_dir.glob("*.json")):
        record = read_json(path, _Record)
        if record is not None:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                yield PriorIdentity.from_dict(record.prior), record


def _file_state(path: Path) -> _FileState:
    found = path.stat()
    return _FileState(str(path), found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
