"""The commands that make a run again, from what was recorded of it."""

import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rela.errors import RelaError
from rela.options import flag_name
from rela.pipeline.artifact import Artifact, find_artifacts
from rela.priors.prior import JOINT
from rela.stages.settings import ConvertSettings
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import WHERE_TO_RUN, TrainSettings


def commands_for(workspace: Workspace, run: Artifact) -> list[str]:
    """`rela convert`, `rela embed` and `rela train` with every setting that is not the default.

    Resolved settings are written out, so that other defaults in a later version change nothing.
    """
    name, prior = run.manifest.content["dataset"], run.manifest.content["prior"]
    parameters = run.manifest.parameters
    train = ["rela", "train", name, "--prior", prior or "none"]
    train += _flags(TrainSettings, {k: v for k, v in parameters.items() if k != "prior"})
    commands = [*_convert(workspace, name), *_embed(workspace, run, name), train]
    return [shlex.join(words) for words in commands]


def _convert(workspace: Workspace, name: str) -> list[list[str]]:
    try:
        dataset = workspace.dataset(name)
    except RelaError:
        return []  # it is gone
    source = dataset.manifest.provenance.get("source", "path/to/images")
    flags = _flags(ConvertSettings, dataset.manifest.parameters)
    return [["rela", "convert", source, "--name", name, *flags]]


def _embed(workspace: Workspace, run: Artifact, name: str) -> list[list[str]]:
    key = run.manifest.parameters["prior"]
    known = find_artifacts(workspace.representations_dir)
    made = next((a for a in known if a.fingerprint == key), None)
    if run.manifest.content["prior"] in (None, "random") or made is None:
        return []
    content = made.manifest.content
    joint = "components" in content
    layer = "pooled" if joint else content["prior"].get("layer", "pooled")
    names = content["prior"]["name"].split(JOINT) if joint else [content["prior"]["name"]]
    words = ["rela", "embed", name]
    for one in names:
        words += ["--prior", one.removesuffix(f"@{layer}")]
    words += ["--layer", layer] if layer != "pooled" else []
    words += ["--crops", str(content["crops"])] if content["crops"] else []
    return [words]


def _flags(settings: type, values: Mapping[str, Any]) -> list[str]:
    """Options for the values that are not the defaults; places and None are left out."""
    words = []
    for described in fields(settings):
        value = values.get(described.name)
        if value is None or value == described.default or described.name in WHERE_TO_RUN:
            continue
        words.append(flag_name(described.name))
        if value is not True:
            words.append(str(value))
    return words
