"""A workspace: where artifacts lie, and whether their manifests hold what the jobs rely on."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError, one_line
from rela.pipeline import artifact as any_artifact
from rela.pipeline.artifact import Artifact
from rela.pipeline.errors import CorruptArtifactError
from rela.priors.prior import identity_from_dict
from rela.stages.workspace.form import Form, misfit, settings_form
from rela.training.settings import TrainSettings

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


_SECONDS: Form = {"seconds": float, "finished_unix_seconds?": float}
_SPLIT: Form = {
    "num_images": int, "num_jpeg": int, "num_raw": int, "median_shorter_side_pixels": int,
    "images_sha256": str, "labels_sha256": str, "images_per_class": [int],
}  # fmt: skip
_SPLITS = {"train", "val"}
_FORMS: dict[str, Form] = {
    "dataset": {
        "content": {
            "class_names": [str], "labelled": bool, "splits": {"train": _SPLIT, "val?": _SPLIT},
            "bad_images": [[str]], "sources_sha256": str,
        },
        "provenance": _SECONDS,
    },
    "representations": {
        "content": {
            "shape": [int], "crops": int, "prior": {"name": str}, "run": (str, type(None)),
            "dataset": str, "split": str, "components?": [{"run": (str, type(None)), "num_dropped": int}],
        },
        "parameters": {"dtype": str},
        "inputs": {"images": str},
        "provenance": {**_SECONDS, "components_seconds?": [float]},
    },
    "targets": {"inputs": {"images": str}, "provenance": _SECONDS},
    "run": {
        "content": {
            "dataset": str, "prior": (str, type(None)), "handover_step": (int, type(None)),
            "num_steps": int,
        },
        "parameters": {
            **settings_form(TrainSettings), "model": str, "image_size": int, "method": str,
            "epochs": int, "batch_size": int, "seed": int, "data_ratio": float,
            "handover": (float, type(None)),
        },
        "inputs": {"dataset": str, "images": str},
        "provenance": _SECONDS,
    },
}  # fmt: skip


def open_artifact(path: Path) -> Artifact | None:
    """As `rela.pipeline.artifact.open_artifact`; CorruptArtifactError for content of another form."""
    artifact = any_artifact.open_artifact(path)
    return None if artifact is None else _checked(artifact)


def find_artifacts(parent: Path) -> list[Artifact]:
    """As `rela.pipeline.artifact.find_artifacts`; CorruptArtifactError for content of another form."""
    return [_checked(artifact) for artifact in any_artifact.find_artifacts(parent)]


def _checked(artifact: Artifact) -> Artifact:
    manifest = artifact.manifest
    if manifest.kind not in _FORMS:
        problem = f"it is no {', '.join(_FORMS)}"
    else:
        problem = misfit(manifest.__dict__, _FORMS[manifest.kind], "its manifest")
        problem = problem or _more(manifest.kind, manifest.content)
    if problem:
        raise CorruptArtifactError(
            f"{artifact.path} is damaged: {problem}; remove it and run the stage that made it again"
        )
    return artifact


def _more(kind: str, content: dict[str, Any]) -> str:
    """What is wrong beyond the form."""
    if kind == "dataset" and (odd := set(content["splits"]) - _SPLITS):
        return f"it has a split {min(odd)!r}"  # the name of a file
    if kind == "dataset" and any(len(entry) != 2 for entry in content["bad_images"]):
        return "its bad images are no pairs of path and reason"
    if kind == "representations":
        if len(content["shape"]) != 2:
            return "its shape is none of a matrix"
        try:
            identity_from_dict(content["prior"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return f"its prior is none ({error})"
    return ""
