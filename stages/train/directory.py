"""The directory of a new run: a free one, or that of the same run which another job has just begun."""

import contextlib
import time
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError
from rela.pipeline.locks import remove_if_free
from rela.stages.requests import Train
from rela.stages.train.prior import NO_PRIOR, RANDOM_PRIOR
from rela.stages.train.taken import taken
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.run import CONFIG_FILE, LOCK_FILE, Config
from rela.stages.workspace.schema import read_json
from rela.stages.workspace.workspace import Workspace, check_name
from rela.training.run_directory import CHECKPOINTS_DIR, INITIAL_FILE


def new_run_directory(
    workspace: Workspace,
    dataset: DataSet,
    config: Config,
    request: Train,
) -> Path:
    """The directory of a new run, or of one with this fingerprint that another job has just begun."""
    from rela.models.backbones import model_names

    name, settings = request.name, config.settings
    if name is not None:
        directory = workspace.runs_dir / check_name(name, "run")
        if name in model_names() or name in (NO_PRIOR, RANDOM_PRIOR):
            raise ChoiceError(f"--name {name} would hide the prior of that name; choose another")
        if _is_another(directory, config.fingerprint):
            raise taken(workspace, directory, config, request)
        return directory
    number = 1
    while True:
        directory = workspace.runs_dir / f"{dataset.name}-{settings.method}-{number}"
        if not _is_another(directory, config.fingerprint):
            return directory
        number += 1


def is_soon_another(directory: Path, fingerprint: str) -> bool:
    """Whether the job that has just locked `directory` writes other settings there, within a second."""
    for _ in range(20):
        if _is_another(directory, fingerprint):
            return True
        time.sleep(0.05)
    return False


def _is_another(directory: Path, fingerprint: str) -> bool:
    """Whether `directory` holds another run or anything else; one without settings is free.

    A job that is about to write its settings holds the lock; a killed one has written nothing of value.
    """
    if not directory.is_dir():
        return directory.exists()
    if all(path.name.startswith((".", INITIAL_FILE)) for path in directory.iterdir()):
        return False
    config = read_json(directory / CONFIG_FILE, dict[str, Any]) or {}
    return bool(config.get("fingerprint") != fingerprint)


def remove_if_never_begun(directory: Path) -> None:
    """Remove a run without checkpoints, unless another job has begun in its directory since."""
    with contextlib.suppress(OSError):
        remove_if_free(directory / LOCK_FILE, lambda: not (directory / CHECKPOINTS_DIR).is_dir())
