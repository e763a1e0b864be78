"""JSON from a disk as typed objects: a msgspec struct is both schema and reader.

Strict: `true` and `1.0` are not integers, and no number is NaN or has a magnitude of 2⁶³ or more.
Unknown entries are ignored, so that workspaces of newer and older versions open.
"""

import json
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from rela.pipeline.artifact import Artifact
from rela.pipeline.errors import CorruptArtifactError
from rela.pipeline.files import read_regular
from rela.pipeline.manifest import remedy

_LIMIT = 1 << 63
Int = Annotated[int, msgspec.Meta(gt=-_LIMIT, le=_LIMIT - 1)]
Float = Annotated[float, msgspec.Meta(gt=-float(_LIMIT), lt=float(_LIMIT))]
T = TypeVar("T")


class Timing(msgspec.Struct, frozen=True):
    """Provenance of every artifact: seconds, time of completion, versions by package.

    `cpu_seconds` is None in artifacts of versions that did not measure it.
    """

    seconds: Float
    cpu_seconds: Float | None = None
    finished_unix_seconds: Float | None = None
    versions: dict[str, str] = msgspec.field(default_factory=dict)


def as_type(value: Any, kind: type[T], where: str = "") -> T:
    """Convert `value` from `json.loads` to a `kind`; raises ValueError naming the place."""
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        problem, _, place = str(error).partition(" - at `")
        place = f"{where}{place.replace('$', '', 1).replace('`', '', 1)}".lstrip(".")
        raise ValueError(f"{place}: {problem}" if place else problem) from error


def fits(value: Any, kind: Any) -> bool:
    """Whether `as_type` accepts it."""
    try:
        as_type(value, kind)
    except ValueError:
        return False
    return True


def as_fields(value: dict[str, Any], kind: type[T], where: str = "") -> T:
    """Make a dataclass from an object with some of its fields; raises ValueError naming the place.

    Numbers keep their type: turning 1 into 1.0 would change fingerprints.
    """
    as_type(value, kind, where)
    known = {f.name: value[f.name] for f in fields(kind) if f.name in value}  # type: ignore[arg-type]
    for name, number in known.items():
        if isinstance(number, int | float) and not abs(number) < _LIMIT:
            raise ValueError(f"{where}.{name}: Expected a number below 2⁶³".lstrip("."))
    return kind(**known)


def load_json(path: Path, kind: type[T]) -> T:
    """The JSON in `path` as a `kind`; raises OSError or ValueError."""
    try:
        return as_type(json.loads(read_regular(path)), kind)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(path: Path, kind: type[T]) -> T | None:
    """As `load_json`; None if the file is missing, damaged or something else."""
    try:
        return load_json(path, kind)
    except (OSError, ValueError):
        return None


def checked_manifest(artifact: Artifact, kind: type[T]) -> T:
    """The manifest as a `kind`; raises CorruptArtifactError naming the place."""
    try:
        return as_type(vars(artifact.manifest), kind, "manifest")
    except ValueError as error:
        raise CorruptArtifactError(
            f"{artifact.path} is damaged: {error}; {remedy(artifact.path)}"
        ) from error
