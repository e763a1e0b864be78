"""The images most like a text, by cached representations of a CLIP model and its text tower."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rela.errors import ChoiceError, DataError, one_line
from rela.options import part_of
from rela.pipeline.locks import in_use
from rela.priors import POOLED, PriorIdentity, PriorRequest
from rela.priors.checkpoint_file import PREFIX as FILE_PREFIX
from rela.priors.clip import PREFIX, text_features
from rela.stages import requests
from rela.stages.neighbors.of_image import Neighbors, found_neighbors
from rela.stages.neighbors.searched import cached_for
from rela.stages.priors.again import request_again
from rela.stages.priors.find import shown_name, with_names
from rela.stages.settings import NeighborsSettings
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.workspace import Workspace


def nearest_to(workspace: Workspace, text: str, request: requests.Neighbors) -> Neighbors:
    """Find the images of a data set whose vectors have the largest cosine with that of a text.

    Both are vectors of one CLIP model (Radford et al. 2021, arXiv 2103.00020). Raises ChoiceError unless the
    representations are the image tower's, DataError if the text tower is one of other weights.
    """
    settings = part_of(request, NeighborsSettings)
    split = settings.split or "train"
    dataset = workspace.dataset(settings.dataset, "--dataset")
    found, named = cached_for(workspace, dataset, split, request)
    asked = _clip_request(workspace, found, named)
    from rela.representations.neighbors import nearest_neighbors

    with in_use(dataset.path, found.path):
        bank = with_names(dataset, split, found)
        vectors, tower_sha256 = text_features(asked, [text])
        if tower_sha256 != found.prior.as_dict()["weights_sha256"]:
            raise DataError(
                f"the weights of {asked.name} are others than those that {found.name} was made with; "
                "embed again"
            )
        nearest = nearest_neighbors(bank.array, vectors[0].numpy(), settings.count)
    return found_neighbors(dataset, split, found, bank, nearest, text=text)


def _clip_request(
    workspace: Workspace, found: Representations, named: Sequence[PriorRequest]
) -> PriorRequest:
    """The request for the CLIP model that made them, in the file that is named if one is.

    Raises ChoiceError if no such model made them.
    """
    prior, run = found.prior, found.content.run
    is_clip = isinstance(prior, PriorIdentity) and prior.arch.startswith(PREFIX) and run is None
    if not is_clip or prior.as_dict()["layer"] != POOLED:
        raise ChoiceError(
            f"--text requires features of a CLIP model, found {one_line(shown_name(found))}; embed with "
            f"one first: `rela embed {found.content.dataset} --prior clip:ViT-B-16`, then name it: --prior"
        )
    assert isinstance(prior, PriorIdentity)
    asked = request_again(workspace, (prior, None))
    for each in (asked, *named):
        if each.name.startswith(FILE_PREFIX):
            file = Path(each.name.removeprefix(FILE_PREFIX))
            asked = replace(asked, name=asked.arch or asked.name, weights=file, arch=None)
        elif each.weights is not None:
            asked = replace(asked, weights=each.weights)
    return replace(asked, image_size=prior.image_size, resizes=True)
