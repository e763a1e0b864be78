"""An earlier run as a prior: its exported backbone with the preprocessing it was trained for."""

import json
from pathlib import Path
from typing import Any

from rela.errors import DataError
from rela.pipeline.files import read_regular, replace_file
from rela.priors.prior import PriorIdentity

BACKBONE_FILE = "backbone.safetensors"  # the trained weights
IDENTITY_FILE = "backbone.json"  # their identity, for use as a prior


def write_identity(directory: Path, identity: PriorIdentity) -> None:
    """Write the identity beside the exported weights, for use as a prior."""
    replace_file(directory / IDENTITY_FILE, json.dumps(identity.as_dict(), indent=1).encode())


def read_identity(directory: Path) -> PriorIdentity:
    """The identity of a run's backbone, without importing torch."""
    path = directory / IDENTITY_FILE
    try:
        return PriorIdentity.from_dict(json.loads(read_regular(path)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is missing or damaged; train the run again") from error


def read_backbone(directory: Path, identity: PriorIdentity) -> dict[str, Any]:
    """The run's weights by name; raises DataError if they are not the recorded ones."""
    from rela.models.weights import read_state_dict, state_sha256

    path = directory / BACKBONE_FILE
    state = read_state_dict(path)
    if state_sha256(state) != identity.weights_sha256:
        raise DataError(f"{path} was changed after the run finished; train the run again")
    return state


def load_backbone(directory: Path, identity: PriorIdentity) -> Any:
    """The run's backbone in eval mode; raises as `read_backbone`."""
    from rela.models.backbones import build_backbone
    from rela.models.weights import load_strict

    state = read_backbone(directory, identity)
    backbone = build_backbone(identity.arch, identity.image_size)
    load_strict(backbone, state, [], str(directory / BACKBONE_FILE))
    return backbone.eval()
