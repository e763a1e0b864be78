"""A finished run → a longer one, which begins at its last checkpoint."""

import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError
from rela.options import check_options
from rela.pipeline import Say
from rela.pipeline.artifact import staging
from rela.pipeline.locks import in_use
from rela.stages.workspace.run import CONFIG_FILE, Config, Run, read_config
from rela.stages.workspace.workspace import Workspace
from rela.training.run_directory import CHECKPOINTS_DIR, METRICS_FILE


def extended_config(run: Run, epochs: int, where: Mapping[str, Any]) -> Config:
    """Configuration of a run of `epochs` that begins as `run` ended, still with that run's fingerprint."""
    if epochs <= run.settings.epochs:
        raise ChoiceError(
            f"--epochs {epochs}: run {run.name} has {run.settings.epochs} epochs already; give more"
        )
    settings = replace(run.settings, epochs=epochs, **where)
    check_options(settings)
    return replace(read_config(run.path), settings=settings, extends=run.fingerprint)


def begin_extension(workspace: Workspace, run: Run, config: Config, say: Say) -> Path:
    """The directory of the longer run, with the last checkpoint and the records of `run`.

    Another process that extends the same run may have just made it; then it is that one's.
    """
    from rela.training.checkpoints import newest_checkpoint

    directory = workspace.runs_dir / f"{run.name}-{config.settings.epochs}-epochs"
    if directory.exists():
        return _of_another_process(directory, config)
    with in_use(run.path), staging(directory) as staged:
        found = newest_checkpoint(run.path / CHECKPOINTS_DIR, say)
        if found is None:
            raise ChoiceError(
                f"run {run.name} has no checkpoint any more in {run.path / CHECKPOINTS_DIR}; train "
                f"a new run with `--epochs {config.settings.epochs}`"
            )
        (staged / CHECKPOINTS_DIR).mkdir()
        for path in (found[0], found[0].with_suffix(".json")):
            shutil.copyfile(path, staged / CHECKPOINTS_DIR / path.name)
        shutil.copyfile(run.path / METRICS_FILE, staged / METRICS_FILE)
        config.write(staged)
        try:
            os.rename(staged, directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            return _of_another_process(directory, config)
    say(
        f"run {directory.name} extends run {run.name} from {run.settings.epochs} to "
        f"{config.settings.epochs} epochs: {_schedule(run, config)}"
    )
    return directory


def _of_another_process(directory: Path, config: Config) -> Path:
    """The directory, if it is that of the same longer run."""
    is_same = (directory / CONFIG_FILE).is_file() and (
        read_config(directory).fingerprint == config.fingerprint
    )
    if not is_same:
        raise ChoiceError(
            f"{directory} already exists and is another run; `rela rm run:{directory.name}` removes it"
        )
    return directory


def _schedule(run: Run, config: Config) -> str:
    before, after = run.settings.epochs, config.settings.epochs
    if config.settings.schedule != "cosine":
        return "the learning rate stays constant"
    rate = float(run.records[-1].get("lr", 0.0)) if run.records else 0.0
    return (
        f"its learning rate, {rate:.2g} at the end of that run, follows the cosine of {after} epochs from "
        f"epoch {before} on, so it rises first"
    )
