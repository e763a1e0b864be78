"""Remove data sets, representations, targets and runs by name, and say what depends on them."""

import math
import shlex
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError
from rela.pipeline.errors import BusyError, CorruptArtifactError
from rela.pipeline.files import directory_bytes
from rela.pipeline.locks import remove_if_free, remove_unused
from rela.pipeline.manifest import MANIFEST_NAME
from rela.pipeline.parts import remove_unused_parts
from rela.priors.names import is_called, shown_names
from rela.result import Result
from rela.stages.display import human_bytes
from rela.stages.requests import Remove
from rela.stages.workspace.cache import list_cache, nothing_called, parents_of
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import Representations, Targets
from rela.stages.workspace.run import LOCK_FILE, read_config
from rela.stages.workspace.workspace import Workspace, find_artifacts, open_artifact

_KINDS = {
    "dataset": "data set",
    "representations": "representations",
    "run": "run",
    "targets": "targets",
    "parts": "unfinished parts",
    "leftover": "leftover",
}
_LEFTOVERS = ("parts", "leftover")


@dataclass(frozen=True)
class Thing:
    """A directory to remove; `why`: how it depends on one that was named, empty for that one."""

    kind: str
    name: str
    path: Path
    num_bytes: int
    why: str = ""

    @property
    def words(self) -> str:
        """`run first`, `data set photos`."""
        return f"{_KINDS[self.kind]} {self.name}"


@dataclass(frozen=True, repr=False)
class RemoveResult(Result):
    """What was removed, or would be; `kept`: what depended on it and stays."""

    removed: list[Thing]
    kept: list[Thing]
    dry_run: bool

    def shown(self) -> dict[str, Any]:
        """How much was removed, or would be, and what stays though it depended on it."""
        done = "would remove" if self.dry_run else "removed"
        size = human_bytes(sum(thing.num_bytes for thing in self.removed))
        kept = ", ".join(thing.words for thing in self.kept)
        return {
            done: f"{', '.join(thing.words for thing in self.removed)} ({size})",
            "kept": kept or None,
        }


def remove(workspace: Workspace, request: Remove) -> RemoveResult:
    """Remove what the names stand for: NAME, KIND:NAME or a path, or a prior that one thing is made by.

    Raises ChoiceError for unknown and ambiguous names, and where something else depends on them, unless
    that is removed too (`dependents`) or left as it is (`force`); BusyError for what a job uses.
    """
    names, dependents, dry_run = request.names, request.dependents, request.dry_run
    if not names:
        raise ChoiceError("name what to remove; `rela cache ls` shows names")
    if dependents and request.force:
        raise ChoiceError("--dependents removes what depends on it, --force keeps that; give one")
    named = [_find(workspace, name) for name in dict.fromkeys(names)]
    if not request.force:  # features of a run from which nothing else is made
        of_runs = [thing for each in named for thing in _own_features(workspace, each)]
        named += [thing for thing in of_runs if thing.path not in {each.path for each in named}]
    paths = {thing.path for thing in named}
    others = {
        thing.path: thing
        for each in named
        for thing in depending(workspace, each.path, paths)
        if thing.path not in paths
    }
    if others and not (dependents or request.force or dry_run):
        listed = "\n".join(f"  {thing.words}: {thing.why}" for thing in others.values())
        typed = " ".join(names)
        count = (
            "something else depends" if len(others) == 1 else f"{len(others)} other things depend"
        )
        raise ChoiceError(
            f"{count} on {' and '.join(t.words for t in named if not t.why)}:\n{listed}\n"
            f"remove them too with `rela rm {typed} --dependents`, or keep them with "
            f"`rela rm {typed} --force`"
        )
    going = [*(others.values() if dependents else ()), *named]
    if not dry_run:
        for thing in going:
            remove_directory(thing)
    return RemoveResult(going, [] if dependents else [*others.values()], dry_run)


def format_result(result: RemoveResult) -> str:
    """A line for each thing."""
    words = "would remove" if result.dry_run else "removed"
    lines = [f"{words} {t.words} ({human_bytes(t.num_bytes)})" for t in result.removed]
    kept = "depends on it: " if result.dry_run else "kept "
    lines += [f"{kept}{thing.words}: {thing.why}" for thing in result.kept]
    return "\n".join(lines)


def depending(workspace: Workspace, path: Path, going: Collection[Path] = ()) -> Iterator[Thing]:
    """What is of less use without the artifact or unfinished run at `path`; nothing if it is damaged.

    `going`: all that is removed, so that no data set counts as the copy of another one.
    """
    try:
        artifact = open_artifact(path)
    except CorruptArtifactError:
        return
    if isinstance(artifact, DataSet):
        yield from _of_dataset(workspace, artifact, {*going, path})
    elif isinstance(artifact, Representations):
        yield from _of_representations(workspace, artifact)
    elif path.parent == workspace.runs_dir:
        yield from _of_run(workspace, path.name)


def _of_dataset(workspace: Workspace, dataset: DataSet, going: Collection[Path]) -> Iterator[Thing]:
    others = [d for d in workspace.datasets() if d.path not in going]
    same = next((d.name for d in others if d.fingerprint == dataset.fingerprint), None)
    instead = f"; data set {same} has the same images, and is used then"
    for run in workspace.runs():
        if run.dataset_fingerprint == dataset.fingerprint and (
            same is None or run.content.dataset == dataset.name
        ):
            lost = "; it can only be evaluated with --dataset OTHER" if same is None else instead
            yield thing_at("run", run.path, f"trained on it{lost}")
    for path in workspace.unfinished_runs():
        of = read_config(path).dataset
        if of.fingerprint == dataset.fingerprint and (same is None or of.name == dataset.name):
            lost = "; it could not be resumed" if same is None else instead
            yield thing_at("run", path, f"not finished{lost}")
    elsewhere = {other.images_sha256(split) for other in others for split in other.splits}
    images = {dataset.images_sha256(split) for split in dataset.splits} - elsewhere
    for made in workspace.representations_and_maps():
        if made.images_sha256 in images:
            yield thing_at("representations", made.path, "features of its images")
            yield from _targets_of(workspace, made)


def _of_representations(workspace: Workspace, made: Representations) -> Iterator[Thing]:
    yield from _targets_of(workspace, made)
    for other in workspace.representations():
        if made.fingerprint in other.manifest.inputs.values():
            yield thing_at("representations", other.path, "combined from it")
    for path in workspace.unfinished_runs():
        config = read_config(path)
        if made.fingerprint in (config.settings.prior, config.maps):
            yield thing_at("run", path, "not finished; it could not be resumed")


def _targets_of(workspace: Workspace, made: Representations) -> Iterator[Thing]:
    for targets in find_artifacts(Targets, workspace.targets_dir):
        if targets.manifest.inputs.get("representations") == made.fingerprint:
            yield thing_at("targets", targets.path, f"made from {made.name}")


def _of_run(workspace: Workspace, name: str) -> Iterator[Thing]:
    for run in workspace.runs():
        if run.content.snapshot_of == name:
            yield thing_at("run", run.path, "one of its checkpoints")
    for made in workspace.representations_and_maps():
        if made.content.run == name:
            yield thing_at("representations", made.path, "its features")


def _own_features(workspace: Workspace, thing: Thing) -> Iterator[Thing]:
    """Features of a run, such as its evaluation embedded, from which nothing else is made."""
    if thing.kind == "run":
        for made in _of_run(workspace, thing.name):
            if made.kind == "representations" and not any(depending(workspace, made.path)):
                yield made


def _find(workspace: Workspace, name: str) -> Thing:
    parents = {kind.replace(" ", ""): path for kind, path in parents_of(workspace).items()}
    if "/" in name:  # the path that a message names
        path = Path(name)
        kinds = {parent.resolve(): kind for kind, parent in parents.items()}
        kind = kinds.get(path.parent.resolve())
        if kind is not None and path.is_dir():
            return thing_at(kind, path) if path.name[0] != "." else _listed(workspace, path.name)
        if (path / MANIFEST_NAME).is_file():
            place = shlex.quote(str(path.parent.parent))
            raise ChoiceError(f"{name} is not in {workspace.root}; choose --workspace {place}")
    prefix, colon, rest = name.partition(":")
    wanted = {prefix: rest} if colon and prefix in parents else dict.fromkeys(parents, name)
    found = [
        (kind, parents[kind] / each)
        for kind, each in wanted.items()
        if "/" not in each and not each.startswith(".") and (parents[kind] / each).is_dir()
    ]
    if not found:
        return _listed(workspace, name)
    if len(found) > 1:
        forms = " or ".join(f"`rela rm {kind}:{name}`" for kind, _ in found)
        raise ChoiceError(f"{name} is the name of {len(found)} things; choose {forms}")
    return thing_at(*found[0])


def _listed(workspace: Workspace, name: str) -> Thing:
    """What a list shows by this name otherwise: representations of a prior, or leftovers of a job."""
    leftovers = {e.name: e for e in list_cache(workspace).entries if e.kind in _LEFTOVERS}
    if name in leftovers:
        return thing_at(leftovers[name].kind, Path(leftovers[name].path))
    made = workspace.representations()
    shown = list(zip(made, shown_names(each.prior for each in made), strict=True))
    of_prior = [each for each, called in shown if called == name]
    of_prior = of_prior or [each for each in made if is_called(each.prior, name)]
    if len(of_prior) == 1:
        return thing_at("representations", of_prior[0].path)
    if of_prior:
        names = [each.name for each in of_prior]
        one = "\n".join(f"  `rela rm {each}`" for each in names)
        raise ChoiceError(
            f"{len(names)} things are made by prior {name}; remove all of them with "
            f"`rela rm {' '.join(names)}`, or one:\n{one}"
        )
    known = [p.name for path in parents_of(workspace).values() for p in path.glob("[!.]*")]
    raise nothing_called(workspace, [name], [*known, *leftovers, *(called for _, called in shown)])


def thing_at(kind: str, path: Path, why: str = "") -> Thing:
    """The directory with its size."""
    return Thing(kind, path.name, path, directory_bytes(path), why)


def remove_directory(thing: Thing) -> None:
    """Remove it if no job uses it; raises BusyError."""
    if thing.kind == "leftover":
        shutil.rmtree(thing.path)
        return
    if thing.kind == "parts":
        gone = remove_unused_parts(thing.path)
    elif (thing.path / MANIFEST_NAME).is_file():
        gone = remove_unused(thing.path, math.inf)
    else:
        lock = thing.path / LOCK_FILE
        lock.touch()
        gone = remove_if_free(lock)
    if not gone:
        raise BusyError(f"{thing.words} is in use; wait for the job, which `rela status` shows")
