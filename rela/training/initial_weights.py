"""The weights that a training begins with, kept in its directory, so that resuming needs no other file."""

from pathlib import Path

from torch import nn

from rela.errors import DataError
from rela.models.weights import load_strict, read_state_dict, recorded, save_weights, state_sha256
from rela.pipeline.manifest import remedy
from rela.training.run_directory import INITIAL_FILE

_DIGEST = "weights_sha256"


def write_initial(directory: Path, backbone: nn.Module) -> None:
    """Keep the backbone's weights; raises StorageError."""
    digest = state_sha256(backbone.state_dict())
    save_weights(directory / INITIAL_FILE, backbone, {_DIGEST: digest})


def load_initial(backbone: nn.Module, directory: Path) -> None:
    """Load the weights kept in a run's directory, every tensor of the backbone, bit by bit.

    Raises DataError if they are missing or damaged.
    """
    path = directory / INITIAL_FILE
    if not path.is_file():
        raise DataError(
            f"{path}, the weights that the run begins with, is missing; {remedy(directory)}"
        )
    state = read_state_dict(path)
    if state_sha256(state) != recorded(path).get(_DIGEST):
        raise DataError(
            f"{path}, the weights that the run begins with, is damaged; {remedy(directory)}"
        )
    load_strict(backbone, state, [], str(path))
