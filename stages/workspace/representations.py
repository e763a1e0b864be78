"""Cached representations: which prior made them, of which crops, from which parts."""

import json
from pathlib import Path

from rela.errors import ChoiceError
from rela.pipeline.artifact import Artifact
from rela.pipeline.files import write_atomic
from rela.pipeline.owner import printable
from rela.pipeline.parts import PartStore
from rela.priors import PriorIdentity
from rela.priors.prior import Combination, identity_from_dict
from rela.stages.settings import EmbedSettings
from rela.stages.workspace.form import Form
from rela.stages.workspace.run import read_json
from rela.stages.workspace.workspace import Workspace

REPRESENTATIONS_FILE = "representations.h5"


def prior_of(representations: Artifact) -> PriorIdentity | Combination:
    """Who made these representations: one prior, or several side by side."""
    return identity_from_dict(representations.manifest.content["prior"])


def crops_of(representations: Artifact) -> int:
    """K of its random crops per image; 0 for one centre crop."""
    return int(representations.manifest.content["crops"])


def components_of(workspace: Workspace, combination: Artifact) -> list[Artifact]:
    """What a combination was made of; raises ChoiceError with the command if some of it is gone."""
    inputs, content = combination.manifest.inputs, combination.manifest.content
    there = {a.fingerprint: a for a in workspace.representations(inputs["images"])}
    keys = [inputs[f"component {i}"] for i in range(1, len(content["components"]) + 1)]
    if not there.keys() >= set(keys):
        priors = "".join(f" --prior {component['prior']}" for component in content["components"])
        dtype = combination.manifest.parameters["dtype"]
        others = "" if dtype == EmbedSettings.dtype else f" --dtype {dtype}"
        others += "" if content["split"] == "train" else f" --split {content['split']}"
        raise ChoiceError(
            f"{combination.name} was combined from representations that are gone; make them again by "
            f"`rela embed {content['dataset']}{priors}{others}`"
        )
    return [there[key] for key in keys]


_ABOUT_FILE = "about.json"  # among the parts of representations: what they will be


_ABOUT_FORM: Form = {
    "dataset": str, "split": str, "prior": str, "num_parts": int, "num_images": int,
}  # fmt: skip


def describe_parts(store: PartStore, dataset: str, split: str, prior: str, num_images: int) -> None:
    """Leave among the parts what they will be."""
    path = store.directory / _ABOUT_FILE
    if not path.is_file():
        about = {
            "dataset": dataset, "split": split, "prior": prior, "num_parts": store.num_parts,
            "num_images": num_images,
        }  # fmt: skip
        write_atomic(path, json.dumps(about).encode())


def about_parts(directory: Path) -> tuple[str, int | None, int | None]:
    """What the parts in `directory` will be, in words, of how many parts, and of how many images."""
    about = read_json(directory / _ABOUT_FILE, _ABOUT_FORM)
    if not about or min(about["num_parts"], about["num_images"]) < 1:
        return f"representations {directory.name.removeprefix('.parts-')[:12]}", None, None
    what = f"representations of {about['dataset']} ({about['split']}) by {about['prior']}"
    return printable(what), about["num_parts"], about["num_images"]
