"""Requests for priors from their names."""

import re
from pathlib import Path

from rela.evaluation.protocols import SEGMENTATION_PROTOCOL
from rela.priors import PriorRequest
from rela.priors.checkpoint_file import PREFIX as FILE_PREFIX
from rela.priors.names import is_called, literal_characters
from rela.priors.prior import JOINT
from rela.stages.priors.records import known_identities, recorded_of_file
from rela.stages.settings import PriorSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.workspace import Workspace

_TWO_KINDS_OF_TOKENS = re.compile(r"[^+]+@class\+patches(@\d+px|#[0-9a-f]{8})?")


def prior_request(
    dataset: DataSet | None, name: str, described: PriorSettings | None = None
) -> PriorRequest:
    """A request for `name`; a prior without a published or a chosen input size uses the data set's.

    Without a data set, it uses that of segmentation.
    """
    options = vars(described or PriorSettings())
    own = SEGMENTATION_PROTOCOL.image_size if dataset is None else dataset.default_image_size
    chosen = options["image_size"]
    return PriorRequest(
        name, **{**options, "image_size": chosen or own, "resizes": chosen is not None}
    )


def names_of(workspace: Workspace, name: str) -> list[str]:
    """The priors in a name: `A+B` is two, unless it is the name of a run, a file or a layer."""
    parts, found = name.split(JOINT), []
    while parts:
        counts = range(len(parts), 0, -1)
        is_file = JOINT in literal_characters(parts[0])
        usual = len(parts) if is_file else 1
        count = next((n for n in counts if _is_one(workspace, JOINT.join(parts[:n]))), usual)
        found.append(JOINT.join(parts[:count]))
        parts = parts[count:]
    return found


def _is_one(workspace: Workspace, name: str) -> bool:
    """Whether this is one prior, although there may be a plus in its name."""
    if name.startswith(FILE_PREFIX):
        file = Path(name.removeprefix(FILE_PREFIX))
        return file.exists() or bool(recorded_of_file(workspace, file))
    is_layer = _TWO_KINDS_OF_TOKENS.fullmatch(name) is not None
    return is_layer or (
        JOINT in name
        and (
            workspace.has_run(name.removeprefix("run:"))
            or any(is_called(known, name) for known in known_identities(workspace, runs=True))
        )
    )


def requests_of(
    workspace: Workspace, dataset: DataSet, name: str, described: PriorSettings | None = None
) -> list[PriorRequest]:
    """Requests for the name of a prior or of a combination."""
    return [prior_request(dataset, part, described) for part in names_of(workspace, name)]
