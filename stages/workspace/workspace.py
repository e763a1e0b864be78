"""A workspace: where artifacts are, and how a name finds one."""

import difflib
import itertools
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rela.errors import ChoiceError, RelaError, instead, one_line
from rela.pipeline import artifact as artifacts
from rela.pipeline.artifact import Artifact
from rela.pipeline.errors import CorruptArtifactError
from rela.pipeline.locks import holder
from rela.pipeline.manifest import remedy
from rela.sources import find_kind
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import Representations, Targets
from rela.stages.workspace.run import LOCK_FILE, Run

_PARTS_PREFIX = ".parts-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")

Noun = DataSet | Representations | Targets | Run
_KINDS = {kind.KIND: kind for kind in (DataSet, Representations, Targets, Run)}
N = TypeVar("N", DataSet, Representations, Targets, Run)


def free_name(name: str, is_taken: Callable[[str], bool]) -> str:
    """NAME-2, NAME-3, ...: the first that is not taken."""
    names = (f"{name}-{number}" for number in itertools.count(2))
    return next(each for each in names if not is_taken(each))


@dataclass(frozen=True)
class Workspace:
    """A directory of data sets, representations, targets and runs."""

    root: Path

    @classmethod
    def around(cls, artifact: Artifact) -> "Workspace":
        """The workspace that holds the artifact."""
        return cls(artifact.path.resolve().parents[1])

    @property
    def datasets_dir(self) -> Path:
        """datasets/NAME: betons, made by convert."""
        return self.root / "datasets"

    @property
    def representations_dir(self) -> Path:
        """representations/DATASET-SPLIT-PRIOR-KEY: features, made by embed."""
        return self.root / "representations"

    @property
    def targets_dir(self) -> Path:
        """targets/REPRESENTATIONS-WIDTH-KEY: what stage 1 regresses, made by train."""
        return self.root / "targets"

    @property
    def runs_dir(self) -> Path:
        """runs/NAME: a training run and its evaluation."""
        return self.root / "runs"

    @property
    def prior_records_dir(self) -> Path:
        """priors/KEY.json: identities of priors that were built here."""
        return self.root / "priors"

    @property
    def evaluations_dir(self) -> Path:
        """evaluations/KEY.json: evaluations of priors other than runs."""
        return self.root / "evaluations"

    def parts_dir(self, key: str) -> Path:
        """representations/.parts-KEY: the finished parts of incomplete representations."""
        return self.representations_dir / f"{_PARTS_PREFIX}{key[:32]}"

    def unfinished_parts(self) -> list[Path]:
        """The directories of incomplete representations."""
        return sorted(self.representations_dir.glob(f"{_PARTS_PREFIX}*"))

    def datasets(self) -> list[DataSet]:
        """Every finished data set."""
        return find_artifacts(DataSet, self.datasets_dir)

    def dataset(self, name: str | None = None, option: str = "") -> DataSet:
        """The named data set, or the only one; `option` names it on the command line."""
        parent, remedy = self.datasets_dir, "rela convert path/to/images"
        return self._choose(DataSet, "data set", parent, name, remedy, option)

    def dataset_of(self, name: str, fingerprint: str) -> DataSet:
        """The data set of this fingerprint, preferably of this name.

        Without one, that of the name alone; raises ChoiceError if there is neither.
        """
        if self.has_dataset(name) and (named := self.dataset(name)).fingerprint == fingerprint:
            return named  # whatever the others are like
        same = (each for each in self.datasets() if each.fingerprint == fingerprint)
        return next(same, None) or self.dataset(name)

    def dataset_for(self, run: Run, other: str | None = None) -> DataSet:
        """The data set called `other`, or else the one that the run was trained on.

        Raises ChoiceError, with the option that names another one, if that is gone or holds other images.
        """
        if other is not None:
            return self.dataset(other, "--dataset")
        name, there = run.content.dataset, {d.name: d.fingerprint for d in self.datasets()}
        if not there or run.dataset_fingerprint in there.values():
            return self.dataset_of(name, run.dataset_fingerprint)
        what = "has changed since" if name in there else "is gone;"
        error = ChoiceError(
            f"data set {name} {what} run {run.name} was trained on it; choose one with --dataset "
            f"({', '.join(there)})"
        )
        raise instead(error, dataset=name if name in there else next(iter(there)))

    def run(self, name: str | None = None) -> Run:
        """The named finished run, or the only one."""
        if name is not None and _NAME.fullmatch(name) and _is_unfinished(self.runs_dir / name):
            by = holder(self.runs_dir / name / LOCK_FILE)
            raise ChoiceError(
                f"run {name!r} in {self.root} is not finished; resume it with "
                f"`rela train --resume --name {name}`"
                if by is None
                else f"run {name!r} in {self.root} is still running ({by}); `rela status --watch` shows it"
            )
        return self._choose(Run, "finished run", self.runs_dir, name, "rela train")

    def has_dataset(self, name: str) -> bool:
        """Whether a data set has this name; other data sets are not read."""
        return bool(_NAME.fullmatch(name)) and open_artifact(self.datasets_dir / name) is not None

    def has_run(self, name: str) -> bool:
        """Whether a finished run has this name; other runs are not read."""
        return bool(_NAME.fullmatch(name)) and open_artifact(self.runs_dir / name) is not None

    def runs(self, with_snapshots: bool = True) -> list[Run]:
        """Every finished run, and every snapshot of an unfinished one."""
        found = find_artifacts(Run, self.runs_dir)
        return [run for run in found if with_snapshots or run.content.snapshot_of is None]

    def unfinished_runs(self) -> list[Path]:
        """Directories of runs that have no manifest yet, oldest first."""
        if not self.runs_dir.is_dir():
            return []
        unfinished = [path for path in self.runs_dir.iterdir() if _is_unfinished(path)]
        return sorted(unfinished, key=lambda p: (p / "config.json").stat().st_mtime)

    def representations(self, images_sha256: str | None = None) -> list[Representations]:
        """Every finished representation of these images, in any data set, or of any images; no maps."""
        found = self.representations_and_maps(images_sha256)
        return [each for each in found if not each.content.map]

    def representations_and_maps(self, images_sha256: str | None = None) -> list[Representations]:
        """The same with maps, which are representations of another shape."""
        found = find_artifacts(Representations, self.representations_dir)
        return [each for each in found if images_sha256 in (None, each.images_sha256)]

    def maps(self, images_sha256: str) -> list[Representations]:
        """Every finished map of these images."""
        return [each for each in self.representations_and_maps(images_sha256) if each.content.map]

    def representations_by_key(self, images_sha256: str, key: str) -> Representations | None:
        """Those with this fingerprint under any name: a data set or a prior may have been renamed."""
        there = self.representations_and_maps(images_sha256)
        return next((each for each in there if each.fingerprint == key), None)

    def components(self, combination: Representations) -> list[Representations]:
        """The components of a combination; raises ChoiceError with the command if one is missing."""
        there = {each.fingerprint: each for each in self.representations(combination.images_sha256)}
        inputs, components = combination.manifest.inputs, combination.content.components
        keys = [inputs.get(f"component {i}", "") for i in range(1, len(components) + 1)]
        if not there.keys() >= set(keys):
            priors = "".join(f" --prior {component.prior}" for component in components)
            others = "" if combination.dtype == "float16" else f" --dtype {combination.dtype}"
            others += (
                "" if combination.precision == "auto" else f" --precision {combination.precision}"
            )
            if combination.content.split != "train":
                others += f" --split {combination.content.split}"
            raise ChoiceError(
                f"{combination.name} was combined from representations that are missing; make them again "
                f"with `rela embed {combination.content.dataset}{priors}{others}`"
            )
        return [there[key] for key in keys]

    def _choose(
        self,
        kind: type[N],
        what: str,
        parent: Path,
        name: str | None,
        remedy: str,
        option: str = "",
    ) -> N:
        if name is not None and _NAME.fullmatch(name):
            chosen = open_as(kind, parent / name)
            if chosen is not None:
                return chosen
        found = find_artifacts(kind, parent)
        names = [artifact.name for artifact in found]
        if name is not None:
            there = (
                f"found {', '.join(names)}" if names else f"found none; make one with `{remedy}`"
            )
            expected = " (a name is expected, not a path)" if "/" in name else ""
            meant = self._meant(what, parent, name, names)
            raise ChoiceError(f"no {what} {name!r} in {self.root}{expected}: {there}{meant}")
        if not found:
            raise ChoiceError(
                f"no {what} in {self.root}; make one with `{remedy}`, or choose --workspace"
            )
        if len(found) > 1:
            raise ChoiceError(
                f"{len(found)} {what}s in {self.root}; name one of {', '.join(names)}"
                f"{option and f' with {option}'}"
            )
        return found[0]

    def _meant(self, what: str, parent: Path, name: str, names: list[str]) -> str:
        """What a name that does not exist probably stands for; empty if that is unknown."""
        path, others = Path(name), {self.datasets_dir: "data set", self.runs_dir: "run"}
        whole = Path(os.path.realpath(path))  # unlike resolve, also of a link to itself
        inside = whole.parts[len(parent.resolve().parts) :]
        is_inside = parent.resolve() in whole.parents
        meant = inside[0] if is_inside else path.name.removesuffix(".beton")
        alike = [each for each in names if each.lower() == meant.lower()]
        if alike:
            return f"; did you mean {alike[0]}?"
        for folder, other in others.items():
            if folder != parent and (_NAME.fullmatch(name) and (folder / name).is_dir()):
                return f"; {name} is a {other}"
        if what == "data set" and _is_source(path):
            return f"; `rela convert {one_line(shlex.quote(name))}` makes one from that path"
        close = difflib.get_close_matches(name, names, n=1)
        return f"; did you mean {close[0]}?" if close else ""


def _is_source(path: Path) -> bool:
    """Whether images can probably be converted from this path."""
    try:
        return path.exists() and bool(find_kind(path))
    except RelaError:
        return False


def _is_unfinished(run: Path) -> bool:
    return (run / "config.json").is_file() and open_artifact(run) is None


def check_name(name: str, what: str) -> str:
    """Return `name`; raises ChoiceError if it cannot be the name of a directory."""
    if not _NAME.fullmatch(name):
        raise ChoiceError(
            f"{name!r} is not usable as the name of a {what}; use letters, digits, '.', '_', '-', '@' "
            "and '+', beginning with a letter or digit"
        )
    return name


def slug(text: str) -> str:
    """`text` as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._@+-]+", "-", text).strip("-") or "unnamed"


def open_artifact(path: Path) -> Noun | None:
    """The artifact at `path`, if it is complete; CorruptArtifactError if its manifest is damaged."""
    found = artifacts.open_artifact(path)
    return None if found is None else _checked(found)


def find_artifacts(kind: type[N], parent: Path) -> list[N]:
    """Every complete artifact directly under `parent`, by name; raises as `open_as`."""
    return [_of_kind(kind, _checked(found)) for found in artifacts.find_artifacts(parent)]


def open_as(kind: type[N], path: Path) -> N | None:
    """As `open_artifact`; CorruptArtifactError for one of another kind."""
    found = open_artifact(path)
    return None if found is None else _of_kind(kind, found)


def _checked(artifact: Artifact) -> Noun:
    kind = _KINDS.get(artifact.manifest.kind)
    if kind is None:
        raise _other_kind(artifact, ", ".join(_KINDS))
    noun = kind(artifact.path, artifact.manifest)
    assert noun.facts, "checked on first access"
    return noun


def _of_kind(kind: type[N], found: Noun) -> N:
    if not isinstance(found, kind):
        raise _other_kind(found, kind.KIND)
    return found


def _other_kind(artifact: Artifact, expected: str) -> CorruptArtifactError:
    return CorruptArtifactError(
        f"{artifact.path} is damaged: manifest.kind: found {artifact.manifest.kind!r}, expected "
        f"{expected}; {remedy(artifact.path)}"
    )
