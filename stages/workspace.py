"""Where stages leave their artifacts and find those of the stages before."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifact import Artifact
from rela.errors import ChoiceError, one_line
from stages.artifacts import find_artifacts, open_artifact

_PARTS_PREFIX = ".parts-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")


@dataclass(frozen=True)
class Workspace:
    """A directory of data sets, representations, targets and runs."""

    root: Path

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
        """priors/KEY.json: identities of priors that were built before."""
        return self.root / "priors"

    @property
    def evaluations_dir(self) -> Path:
        """evaluations/KEY.json: results of priors that are no runs."""
        return self.root / "evaluations"

    def parts_dir(self, key: str) -> Path:
        """representations/.parts-KEY: what is computed of representations that are not whole yet."""
        return self.representations_dir / f"{_PARTS_PREFIX}{key[:32]}"

    def unfinished_parts(self) -> list[Path]:
        """The directories of representations that are not whole yet."""
        return sorted(self.representations_dir.glob(f"{_PARTS_PREFIX}*"))

    def datasets(self) -> list[Artifact]:
        """Every finished data set."""
        return find_artifacts(self.datasets_dir)

    def dataset(self, name: str | None = None) -> Artifact:
        """The named data set, or the only one there is."""
        return self._choose("data set", self.datasets_dir, name, "rela convert path/to/images")

    def run(self, name: str | None = None) -> Artifact:
        """The named finished run, or the only one there is."""
        if name is not None and _NAME.fullmatch(name) and _is_unfinished(self.runs_dir / name):
            raise ChoiceError(
                f"run {name!r} in {self.root} is not finished; go on with it by "
                f"`rela train --resume --name {name}`"
            )
        return self._choose("finished run", self.runs_dir, name, "rela train")

    def has_dataset(self, name: str) -> bool:
        """Whether a data set has this name; others are not looked at."""
        return bool(_NAME.fullmatch(name)) and open_artifact(self.datasets_dir / name) is not None

    def has_run(self, name: str) -> bool:
        """Whether a finished run has this name; other runs are not looked at."""
        return bool(_NAME.fullmatch(name)) and open_artifact(self.runs_dir / name) is not None

    def runs(self) -> list[Artifact]:
        """Every finished run."""
        return find_artifacts(self.runs_dir)

    def unfinished_runs(self) -> list[Path]:
        """Directories of runs that were started and have no manifest, oldest first."""
        if not self.runs_dir.is_dir():
            return []
        unfinished = [path for path in self.runs_dir.iterdir() if _is_unfinished(path)]
        return sorted(unfinished, key=lambda p: (p / "config.json").stat().st_mtime)

    def representations(self, images_sha256: str) -> list[Artifact]:
        """Every finished representation of these images, whatever data set they are in."""
        return [
            artifact
            for artifact in find_artifacts(self.representations_dir)
            if artifact.manifest.inputs.get("images") == images_sha256
        ]

    def _choose(self, what: str, parent: Path, name: str | None, remedy: str) -> Artifact:
        if name is not None and _NAME.fullmatch(name):
            chosen = open_artifact(parent / name)
            if chosen is not None:
                return chosen
        found = find_artifacts(parent)
        names = [artifact.name for artifact in found]
        if name is not None:
            there = (
                f"there is {', '.join(names)}"
                if names
                else f"there is none; make one with `{remedy}`"
            )
            expected = " (a name is expected, not a path)" if "/" in name else ""
            if what == "data set" and Path(name).exists():
                there += (
                    f"; `rela convert {one_line(shlex.quote(name))}` makes one of what lies there"
                )
            raise ChoiceError(f"no {what} {name!r} in {self.root}{expected}: {there}")
        if not found:
            raise ChoiceError(
                f"no {what} in {self.root}; make one with `{remedy}`, or choose --workspace"
            )
        if len(found) > 1:
            raise ChoiceError(
                f"{len(found)} {what}s in {self.root}, name one of {', '.join(names)}"
            )
        return found[0]


def _is_unfinished(run: Path) -> bool:
    return (run / "config.json").is_file() and open_artifact(run) is None


def check_name(name: str, what: str) -> str:
    """Refuse names that would not be one plain directory."""
    if not _NAME.fullmatch(name):
        raise ChoiceError(
            f"{name!r} is not usable as the name of a {what}; use letters, digits, '.', '_', '-', '@' "
            "and '+', beginning with a letter or digit"
        )
    return name


def slug(text: str) -> str:
    """`text` as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._@+-]+", "-", text).strip("-") or "unnamed"
