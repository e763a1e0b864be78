"""Artifacts whose manifests hold what the stages rely on; others are damaged, however well digested."""

from pathlib import Path
from typing import Any

from pipeline import artifact as any_artifact
from pipeline.artifact import Artifact
from pipeline.errors import CorruptArtifactError
from rela.priors.combination import identity_from_dict
from stages.form import Form, misfit, settings_form
from stages.settings import TrainSettings

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
    """As `pipeline.artifact.open_artifact`; CorruptArtifactError for content of another form."""
    artifact = any_artifact.open_artifact(path)
    return None if artifact is None else _checked(artifact)


def find_artifacts(parent: Path) -> list[Artifact]:
    """As `pipeline.artifact.find_artifacts`; CorruptArtifactError for content of another form."""
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
