"""Loggers of a training: TensorBoard, Weights & Biases, MLflow, or none.

Loggers do not affect the weights. Heavy packages are imported when a logger is opened.
"""

import importlib.util
import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError, UnavailableError
from rela.pipeline.files import read_regular, replace_file

LOGGER_NAMES = ("tensorboard", "wandb", "mlflow")
NO_LOGGER = "none"
_PROJECT = "rela"
_IDS_FILE = "loggers.json"  # identify a resumed run in W&B and MLflow


def parse_loggers(text: str) -> tuple[str, ...]:
    """ "tensorboard,wandb" → both names; "none" → (). Raises ChoiceError otherwise."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if names == (NO_LOGGER,):
        return ()
    if not names or not set(names) <= set(LOGGER_NAMES):
        known = ", ".join(LOGGER_NAMES)
        raise ChoiceError(f"--logger {text}: expected some of {known}, with commas, or {NO_LOGGER}")
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise _not_installed(name)
    return names


@contextmanager
def open_loggers(
    names: tuple[str, ...],
    directory: Path,
    run: str,
    hyperparameters: Mapping[str, Any],
    is_first: bool = True,
) -> Iterator[list[Any]]:
    """Yield Lightning's loggers with the hyper-parameters logged; close them when the body ends.

    They write to `directory`, and to servers according to their own variables (WANDB_MODE,
    MLFLOW_TRACKING_URI). Only rank 0 logs. Raises UnavailableError if one cannot start, OSError if the disk
    refuses what TensorBoard writes.
    """
    loggers, failed = [], True
    try:
        for name in names:
            loggers.append(_opened(name, directory, run, dict(hyperparameters), is_first))
        with _silent_thread():
            yield loggers
        failed = False
    except ValueError as error:  # Lightning's, for whatever goes wrong while a figure is logged
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise
    finally:
        for name, logger in zip(names, loggers, strict=False):
            if is_first:
                with suppress(Exception):  # must not hide the error of the training
                    _close(name, logger, failed)


@contextmanager
def _silent_thread() -> Iterator[None]:
    """Print nothing if TensorBoard's thread fails: it raises its error where the next figure is logged."""
    print_it = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("tensorboard."):
            print_it(failure)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = print_it


def _opened(
    name: str, directory: Path, run: str, hyperparameters: dict[str, Any], is_first: bool
) -> Any:
    try:
        # MLflow rejects parameters that are logged again
        is_logged = name == "mlflow" and name in _ids(directory)
        logger = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}[name](
            directory, run
        )
        if is_first and not is_logged:
            logger.log_hyperparams(hyperparameters)
        return logger
    except ImportError as error:
        raise _not_installed(name) from error
    except OSError:
        raise
    except Exception as error:  # each package has its own
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint = " or set WANDB_MODE=offline," if name == "wandb" else ""
        raise UnavailableError(
            f"--logger {name} cannot start: {line}; fix that,{hint} or leave it out"
        ) from error


def _tensorboard(directory: Path, run: str) -> Any:
    from pytorch_lightning.loggers import TensorBoardLogger

    record = directory / "tensorboard" / TensorBoardLogger.NAME_HPARAMS_FILE
    # a pipe, a broken link, or what a killed training began to write: it would never be written again
    record.unlink(missing_ok=True)
    return TensorBoardLogger(directory, name="", version="tensorboard", default_hp_metric=False)


def _wandb(directory: Path, run: str) -> Any:
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    ids = _ids(directory)
    logger = WandbLogger(
        project=os.environ.get("WANDB_PROJECT", _PROJECT), name=run, save_dir=directory,
        id=ids.get("wandb") or secrets.token_hex(4), resume="allow",
        settings=wandb.Settings(console="off"),
    )  # fmt: skip
    _keep_id(directory, "wandb", str(logger.version))
    return logger


def _mlflow(directory: Path, run: str) -> Any:
    from pytorch_lightning.loggers import MLFlowLogger

    remote = os.environ.get("MLFLOW_TRACKING_URI")
    # a database: MLflow deprecates plain files
    local = f"sqlite:///{(directory / 'mlflow.db').absolute()}"
    logger = MLFlowLogger(
        experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT), run_name=run,
        tracking_uri=remote or local,
        artifact_location=None if remote else (directory / "mlruns").absolute().as_uri(),
        run_id=_ids(directory).get("mlflow"),
    )  # fmt: skip
    _keep_id(directory, "mlflow", str(logger.run_id))
    return logger


def _close(name: str, logger: Any, failed: bool) -> None:
    logger.finalize("failed" if failed else "success")
    if name == "wandb":
        logger.experiment.finish(exit_code=int(failed))


def _ids(directory: Path) -> dict[str, str]:
    try:
        known = json.loads(read_regular(directory / _IDS_FILE))
    except (OSError, ValueError, RecursionError):
        return {}
    known = known.items() if isinstance(known, dict) else ()
    return {name: value for name, value in known if isinstance(value, str) and value.isalnum()}


def _keep_id(directory: Path, name: str, value: str) -> None:
    replace_file(directory / _IDS_FILE, json.dumps({**_ids(directory), name: value}).encode())


def _not_installed(name: str) -> ChoiceError:
    what = f"rela[{name}]" if name != "tensorboard" else name
    return ChoiceError(f"--logger {name} needs a package: pip install '{what}'")
