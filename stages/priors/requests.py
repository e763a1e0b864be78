"""Requests for priors from their names."""

from rela.evaluation.protocols import SEGMENTATION_PROTOCOL
from rela.priors import PriorRequest
from rela.priors.names import literal_characters
from rela.priors.prior import JOINT
from rela.stages.settings import PriorSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.workspace import Workspace


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
    is_run = workspace.has_run(name.removeprefix("run:"))
    is_one = is_run or JOINT in literal_characters(name) or "@class+patches" in name
    return [name] if is_one else name.split(JOINT)


def requests_of(
    workspace: Workspace, dataset: DataSet, name: str, described: PriorSettings | None = None
) -> list[PriorRequest]:
    """Requests for the name of a prior or of a combination."""
    return [prior_request(dataset, part, described) for part in names_of(workspace, name)]
