"""The record that makes a directory an artifact: written last, and nothing is complete without it."""

import json
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rela.pipeline.errors import CorruptArtifactError
from rela.pipeline.files import IrregularFileError, read_regular, write_atomic
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.spent import Spent

MANIFEST_NAME = "manifest.json"
_MAKES = {"datasets": "convert", "representations": "embed", "targets": "train", "runs": "train"}
_MAKERS = {*_MAKES.values(), "eval"}
# Packages that can change a result; rela.priors adds those that models come from.
VERSIONED_PACKAGES = {"rela", "torch", "lightly", "ffcv", "numpy", "h5py", "numba"}


def installed_versions() -> dict[str, str]:
    """Versions of the packages that can change a result, without importing any of them."""
    import platform
    from importlib import metadata  # takes 30 ms

    versions = {"python": platform.python_version()}
    for package in sorted(VERSIONED_PACKAGES):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def provenance(spent: Spent | None = None, command: Sequence[str] = ()) -> dict[str, Any]:
    """Where, when and with what: recorded for people, never part of a fingerprint.

    `command`: the words that make the same again.
    """
    return {
        **({"command": [*command]} if command else {}),
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "finished_unix_seconds": round(time.time(), 3),
        "seconds": None if spent is None else round(spent.seconds, 4),
        "cpu_seconds": None if spent is None else round(spent.cpu_seconds, 4),
        "versions": installed_versions(),
    }


@dataclass(frozen=True)
class Manifest:
    """What an artifact is, what it was made from, and how to check it.

    - `kind`: "dataset", "representations", "targets" or "run";
    - `fingerprint`: SHA-256 of what the content means (see `rela.pipeline.fingerprint`);
    - `inputs`: fingerprints of the artifacts it was made from, by role;
    - `parameters`: every resolved setting;
    - `content`: kind-specific facts (class names, counts, shapes);
    - `file_sha256`: digest of every file, by name relative to the artifact's directory;
    - `provenance`: host, times, versions, command.
    """

    kind: str
    fingerprint: str
    inputs: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)
    file_sha256: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """Publish the manifest in `directory`, together with a digest of itself."""
        body = asdict(self)
        document = {**body, "manifest_sha256": fingerprint(body)}
        text = json.dumps(document, indent=1, sort_keys=True)
        write_atomic(directory / MANIFEST_NAME, text.encode())

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Read and check the manifest of `directory`.

        Raises FileNotFoundError if there is none and CorruptArtifactError if it is damaged.
        """
        path = directory / MANIFEST_NAME
        try:
            document = json.loads(read_regular(path))
            expected = document.pop("manifest_sha256")
            found = fingerprint(document)
            manifest = cls(**document)
            _refuse_odd_entries(manifest)
        except FileNotFoundError:
            raise
        except (
            IrregularFileError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            reason = getattr(error, "strerror", type(error).__name__)
            raise CorruptArtifactError(
                f"{path} is not a readable manifest ({reason}); {remedy(directory)}"
            ) from error
        if found != expected:
            raise CorruptArtifactError(
                f"{path} was changed after it was written: digest {found[:12]}, expected "
                f"{str(expected)[:12]}; {remedy(directory)}"
            )
        return manifest


def _refuse_odd_entries(manifest: Manifest) -> None:
    """Raise TypeError for entries of another type, ValueError for files outside of the artifact."""
    texts = [manifest.kind, manifest.fingerprint]
    for table in (manifest.inputs, manifest.file_sha256):
        texts += table.values()
    tables = manifest.parameters, manifest.content, manifest.provenance
    if any(type(text) is not str for text in texts) or any(
        type(table) is not dict for table in tables
    ):
        raise TypeError("an entry of another type")
    for name in manifest.file_sha256:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            raise ValueError("a file outside of the artifact")


def remedy(directory: Path) -> str:
    """What to do about a damaged result, for the end of a message: the commands that make it again.

    Its manifest names the one that made it. Without that, the folder tells which kind of command did. What
    depends on the result stays.
    """
    remove = shlex.join(["rela", "rm", str(directory), "--force"])
    try:
        command = json.loads(read_regular(directory / MANIFEST_NAME))["provenance"]["command"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        command = None
    if _is_command(command):
        return f"make it again with `{remove} && {shlex.join(command)}`"
    verb = _MAKES.get(directory.parent.name)
    makes = f"`rela {verb} …` makes it again" if verb else "run the command that made it again"
    return f"remove it with `{remove}`; {makes}"


def _is_command(words: Any) -> bool:
    """Whether these are words of a command that makes a result; a manifest may come from anywhere."""
    return (
        isinstance(words, list)
        and len(words) > 2
        and all(isinstance(word, str) and word.isprintable() and "`" not in word for word in words)
        and words[0] == "rela"
        and words[1] in _MAKERS
        and not any(word.startswith("--trust") for word in words)
    )
