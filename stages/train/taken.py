"""The name of a new run that something else has: which settings differ, and what to type instead."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError
from rela.stages.requests import Train, command_of
from rela.stages.workspace.run import CONFIG_FILE, Config, read_config
from rela.stages.workspace.workspace import Workspace, free_name
from rela.training.settings import WHERE_TO_RUN


def taken(workspace: Workspace, directory: Path, config: Config, request: Train) -> ChoiceError:
    """The error for a directory that holds another run than that of `config`, or anything else."""
    free = free_name(directory.name, lambda name: directory.with_name(name).exists())
    other = f"choose another --name: `{command_of('train', request, name=free)}`"
    if not (directory / CONFIG_FILE).is_file():
        return ChoiceError(f"{directory} is there and is no run; {other}")
    found = read_config(directory)
    there, here = _shown(found), _shown(config)
    differing = [name for name in here if here[name] != there.get(name)]
    words = ", ".join(f"{n.replace('_', ' ')} {there.get(n)} (here {here[n]})" for n in differing)
    is_finished = workspace.has_run(directory.name)
    if differing == ["epochs"] and is_finished and here["epochs"] > there["epochs"]:
        longer = f"rela train --resume --name {directory.name} --epochs {here['epochs']}"
        other += f", or extend it: `{longer}`"
    if not is_finished:
        other += f", or resume it as it began: `rela train --resume --name {directory.name}`"
    which = words or "it extends another run"
    return ChoiceError(f"{directory} is a run with other settings: {which}; {other}")


def _shown(config: Config) -> dict[str, Any]:
    """What decides the weights, with names for people in place of digests."""
    settings = {k: v for k, v in asdict(config.settings).items() if k not in WHERE_TO_RUN}
    data = {"images": f"{config.dataset.name}@{config.dataset.fingerprint[:8]}"}
    return {**data, **settings, "prior": config.representations or "none"}
