"""The images most like a text, by cached representations of a CLIP model and its text tower."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rela.errors import ChoiceError, DataError, one_line
from rela.options import part_of
from rela.pipeline.locks import in_use
from rela.priors import POOLED, PriorIdentity, PriorRequest
from rela.priors.checkpoint_file import PREFIX as FILE_PREFIX
from rela.priors.clip import EXAMPLE, PREFIX, text_features
from rela.stages import requests
from rela.stages.neighbors.of_image import Neighbors, found_neighbors
from rela.stages.neighbors.searched import cached_for
from rela.stages.priors.again import request_again
from rela.stages.priors.find import require_one, shown_name, with_names
from rela.stages.settings import NeighborsSettings, PriorSettings
from rela.stages.workspace.dataset import DataSet
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
    if request.prior is None and part_of(request, PriorSettings) == PriorSettings():
        request = replace(request, prior=_only_clip(workspace, dataset, split).name)
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


def _only_clip(workspace: Workspace, dataset: DataSet, split: str) -> Representations:
    """The representations by a CLIP model; raises ChoiceError unless there is one."""
    cached = workspace.representations(dataset.images_sha256(split))
    of_clip = [each for each in cached if _is_by_clip(each) and not each.content.crops]
    if not of_clip:
        of_val = " --split val" if split == "val" else ""
        raise ChoiceError(
            f"--text requires features of a CLIP model, and none are embedded for data set {dataset.name} "
            f"({split}); run `rela embed {dataset.name} --prior {EXAMPLE}{of_val}` first"
        )
    return require_one(of_clip, f"CLIP models are embedded for data set {dataset.name} ({split})")


def _is_by_clip(found: Representations) -> bool:
    """Whether these are the vectors of a CLIP model's image tower."""
    prior = found.prior
    is_clip = isinstance(prior, PriorIdentity) and prior.arch.startswith(PREFIX)
    return is_clip and found.content.run is None and prior.as_dict()["layer"] == POOLED


def _clip_request(
    workspace: Workspace, found: Representations, named: Sequence[PriorRequest]
) -> PriorRequest:
    """The request for the CLIP model that made them, in the file that is named if one is.

    Raises ChoiceError if no such model made them.
    """
    prior = found.prior
    if not _is_by_clip(found):
        raise ChoiceError(
            f"--text requires features of a CLIP model, found {one_line(shown_name(found))}; run "
            f"`rela embed {found.content.dataset} --prior {EXAMPLE}` first, and give --prior {EXAMPLE}"
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
