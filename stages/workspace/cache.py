"""The cache of a workspace: list it, check its bytes, remove what can be computed again."""

import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError
from rela.options import closest
from rela.pipeline.artifact import abandoned
from rela.pipeline.errors import CorruptArtifactError
from rela.pipeline.files import directory_bytes
from rela.pipeline.locks import is_held, last_used, remove_unused
from rela.pipeline.parts import remove_unused_parts
from rela.result import Result, Table
from rela.stages.display import format_table, human_bytes
from rela.stages.workspace.run import read_config
from rela.stages.workspace.workspace import Noun, Workspace, open_artifact

_DAY_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Entry:
    """One artifact, or a leftover of a killed job; times in seconds since 1970."""

    kind: str
    name: str
    path: str
    num_bytes: int
    made: float | None
    used: float
    held: bool


@dataclass(frozen=True)
class Check:
    """Whether an artifact's bytes match its manifest; `problem` is empty if so."""

    kind: str
    name: str
    problem: str


@dataclass(frozen=True, repr=False)
class Listing(Result):
    """Everything in a workspace, largest first."""

    entries: list[Entry]

    def shown(self) -> dict[str, Any]:
        """How many entries there are, and their size."""
        size = human_bytes(sum(entry.num_bytes for entry in self.entries))
        return {"entries": len(self.entries), "size": size}

    def tables(self) -> dict[str, Table]:
        """A row for each entry."""
        now = time.time()
        rows = [
            [
                entry.kind, entry.name, human_bytes(entry.num_bytes),
                None if entry.made is None else _age(now - entry.made), _age(now - entry.used),
                "in use" if entry.held else "",
            ]
            for entry in self.entries
        ]  # fmt: skip
        return {"entries": (("kind", "name", "size", "made", "last used", ""), rows)}


@dataclass(frozen=True, repr=False)
class Verification(Result):
    """The result of checking artifacts."""

    checks: list[Check]

    @property
    def damaged(self) -> list[Check]:
        """The failed checks."""
        return [check for check in self.checks if check.problem]

    def shown(self) -> dict[str, Any]:
        """How many are sound, and which are damaged."""
        damaged = ", ".join(check.name for check in self.damaged) or None
        return {"sound": len(self.checks) - len(self.damaged), "damaged": damaged}

    def tables(self) -> dict[str, Table]:
        """A row for each artifact."""
        rows = [[check.kind, check.name, check.problem or "sound"] for check in self.checks]
        return {"artifacts": (("kind", "name", "state"), rows)}


@dataclass(frozen=True, repr=False)
class Removed(Result):
    """Entries that were removed, or would be; `held`: entries kept because a job uses them."""

    entries: list[Entry]
    held: list[Entry]
    dry_run: bool

    @property
    def num_bytes(self) -> int:
        """Bytes of all entries that were removed."""
        return sum(entry.num_bytes for entry in self.entries)

    def shown(self) -> dict[str, Any]:
        """How much was removed, or would be."""
        done = "would remove" if self.dry_run else "removed"
        size = f"{len(self.entries):,} entries, {human_bytes(self.num_bytes)}"
        return {done: size, "kept, in use": len(self.held) or None}

    def tables(self) -> dict[str, Table]:
        """A row for each entry that was removed, or would be."""
        rows = [[entry.kind, entry.name, human_bytes(entry.num_bytes)] for entry in self.entries]
        return {"entries": (("kind", "name", "size"), rows)}


def list_cache(workspace: Workspace) -> Listing:
    """Everything in the workspace, largest first."""
    found = [_entry(*known) for known in _artifacts(workspace)]
    found += [_leftover(path, "interrupted run") for path in workspace.unfinished_runs()]
    found += [_leftover(path, "parts") for path in workspace.unfinished_parts()]
    found += [
        _leftover(path, "leftover") for path in _abandoned(workspace, time.time() - _DAY_SECONDS)
    ]
    return Listing(sorted(found, key=lambda entry: -entry.num_bytes))


def nothing_called(workspace: Workspace, names: Sequence[str], known: Iterable[str]) -> ChoiceError:
    """The error for names that no artifact has, with the one that was probably meant."""
    last = re.split("[/:]", names[0].rstrip("/"))[-1]
    meant = closest(last, known, "`rela cache ls` shows names")
    return ChoiceError(f"nothing called {', '.join(names)} in {workspace.root}; {meant}")


def verify(workspace: Workspace, names: tuple[str, ...] = ()) -> Verification:
    """Digest every file of the named artifacts (default: all) and compare with the manifests.

    Raises ChoiceError for a name that is not there.
    """
    there = [*_directories(workspace)]
    known = {path.name for _, path in there}
    if unknown := sorted(set(names) - known):
        raise nothing_called(workspace, unknown, known)
    checks = []
    for kind, path in there:
        if not names or path.name in names:
            problem = ""
            try:
                artifact = open_artifact(path)
                if artifact is None:
                    continue  # an interrupted run
                artifact.verify()
            except CorruptArtifactError as error:
                problem = str(error)
            checks.append(Check(kind, path.name, problem))
    return Verification(checks)


def collect(workspace: Workspace, unused_days: float, dry_run: bool = False) -> Removed:
    """Remove representations, targets and unfinished parts that were not used for `unused_days`.

    Leftovers of killed jobs are removed whatever their age. Data sets and runs stay, and so does
    everything that a running job uses or an interrupted run needs to resume.
    """
    if unused_days < 0:
        raise ChoiceError(f"--unused-days {unused_days:g}: expected a number of at least 0")
    now = time.time()
    used_before = now - unused_days * _DAY_SECONDS
    configs = [read_config(run) for run in workspace.unfinished_runs()]
    needed = {key for config in configs for key in (config.settings.prior, config.maps)}
    old: list[Entry] = []
    held: list[Entry] = []
    for kind, artifact in _artifacts(workspace):
        if kind not in ("representations", "targets") or artifact.fingerprint in needed:
            continue
        entry = _entry(kind, artifact)
        if entry.used < used_before:
            kept = entry.held if dry_run else not remove_unused(artifact.path, used_before)
            (held if kept else old).append(entry)
    for path in workspace.unfinished_parts():
        entry = _leftover(path, "parts")
        if entry.used < used_before:
            kept = not dry_run and not remove_unused_parts(path)
            (held if kept else old).append(entry)
    for path in _abandoned(workspace, min(used_before, now - _DAY_SECONDS)):
        old.append(_leftover(path, "leftover"))
        if not dry_run:
            shutil.rmtree(path, ignore_errors=True)
    return Removed(old, held, dry_run)


def format_listing(listing: Listing) -> str:
    """A table and the total size."""
    entries = listing.entries
    if not entries:
        return "nothing here yet"
    total = human_bytes(sum(entry.num_bytes for entry in entries))
    return f"{format_table(*listing.tables()['entries'])}\n{len(entries)} entries, {total}"


def format_verification(verification: Verification) -> str:
    """One line for each artifact."""
    lines = [f"{c.kind} {c.name}: {c.problem or 'sound'}" for c in verification.checks]
    return "\n".join(lines) or "nothing here yet"


def format_removed(removed: Removed) -> str:
    """One line per entry that was removed or is in use, and the size of all that was removed."""
    words = "would remove" if removed.dry_run else "removed"
    lines = [f"{words} {e.kind} {e.name} ({human_bytes(e.num_bytes)})" for e in removed.entries]
    lines += [f"kept {e.kind} {e.name}: a job uses it" for e in removed.held]
    return "\n".join([*lines, f"{words} {human_bytes(removed.num_bytes)} in all"])


def parents_of(workspace: Workspace) -> dict[str, Path]:
    """Where the artifacts of each kind are, by its name in words."""
    return {
        "data set": workspace.datasets_dir,
        "representations": workspace.representations_dir,
        "targets": workspace.targets_dir,
        "run": workspace.runs_dir,
    }


def _directories(workspace: Workspace) -> Iterator[tuple[str, Path]]:
    """Kind and path of every directory that is, or should be, an artifact."""
    for kind, parent in parents_of(workspace).items():
        if parent.is_dir():
            visible = (p for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))
            yield from ((kind, path) for path in sorted(visible))


def _artifacts(workspace: Workspace) -> Iterator[tuple[str, Noun]]:
    for kind, path in _directories(workspace):
        try:
            artifact = open_artifact(path)
        except CorruptArtifactError:
            continue  # `verify` names it
        if artifact is not None:
            yield kind, artifact


def _entry(kind: str, artifact: Noun) -> Entry:
    return Entry(
        kind=kind,
        name=artifact.name,
        path=str(artifact.path),
        num_bytes=directory_bytes(artifact.path),
        made=artifact.facts.provenance.finished_unix_seconds,
        used=last_used(artifact.path),
        held=is_held(artifact.path),
    )


def _leftover(path: Path, kind: str) -> Entry:
    used = max((p.lstat().st_mtime for p in path.rglob("*")), default=path.stat().st_mtime)
    return Entry(kind, path.name, str(path), directory_bytes(path), None, used, False)


def _abandoned(workspace: Workspace, used_before: float) -> list[Path]:
    parents = parents_of(workspace).values()
    return [path for parent in parents for path in abandoned(parent, used_before)]


def _age(seconds: float) -> str:
    for unit, length in (("days", _DAY_SECONDS), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now" if seconds < 60 else "a minute ago"
