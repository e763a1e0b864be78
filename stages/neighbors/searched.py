"""Which representations are searched: those of one prior, of one split or of a whole data set."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rela.errors import ChoiceError
from rela.options import option_words, part_of
from rela.pipeline import Say
from rela.pipeline.locks import in_use
from rela.priors import PriorRequest
from rela.stages import requests
from rela.stages.display import progress_bar
from rela.stages.priors.find import cached_splits, find_cached, shown_name, with_names
from rela.stages.priors.records import priors_of
from rela.stages.priors.requests import requests_of
from rela.stages.settings import NeighborsSettings, PriorSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from rela.data.beton.reader import Beton
    from rela.representations.named import NamedRepresentations
    from rela.representations.neighbors import Matrices, Tell

MEASURE = "cosine of the features, from which the mean over all images was subtracted"


@dataclass(frozen=True)
class Image:
    """An image of a data set: its split, class (None without one), file and row of the split.

    `path` is relative to the folder that was converted.
    """

    split: str
    class_name: str | None
    path: str
    index: int


@dataclass(frozen=True)
class Searched:
    """The representations of some splits by one prior; their rows are numbered one after the other."""

    dataset: DataSet
    prior: str
    parts: "dict[str, NamedRepresentations]"
    betons: "dict[str, Beton]"
    device: "torch.device"

    @property
    def matrices(self) -> "Matrices":
        """The features of each split, float16 or float32 [N, D]."""
        return [part.array for part in self.parts.values()]

    @property
    def num_images(self) -> int:
        """Of all splits."""
        return sum(map(len, self.parts.values()))

    def image(self, row: int) -> Image:
        """The image of one row of all splits."""
        for split, part in self.parts.items():
            if row < len(part):
                label = part.labels[row]
                return Image(
                    split, part.class_names[label] if label >= 0 else None, part.paths[row], row
                )
            row -= len(part)
        raise IndexError(row)

    def stored(self, image: Image) -> "tuple[Beton, int]":
        """Where the image is stored."""
        return self.betons[image.split], image.index


def cached_for(
    workspace: Workspace, dataset: DataSet, split: str, request: requests.Neighbors
) -> tuple[Representations, Sequence[PriorRequest]]:
    """The representations of one centre crop that the request names, and its priors if it names any.

    Raises ChoiceError with the command that makes them.
    """
    described, name = part_of(request, PriorSettings), request.prior
    if name is None and (unused := option_words(PriorSettings, vars(described))):
        only = find_cached(workspace, dataset, split, only_centre_crops=True)
        prior = shown_name(only).removesuffix(f"@{priors_of(only)[0][0].layer}")
        raise ChoiceError(
            f"{unused[0]} describes a prior; name it, too: "
            f"`{requests.command_of('neighbors', request, prior=prior)}`"
        )
    asked = None if name is None else requests_of(workspace, dataset, name, described)
    by_name = described == PriorSettings()
    found = find_cached(workspace, dataset, split, asked, name, by_name, only_centre_crops=True)
    return found, asked or []


@contextmanager
def searched(workspace: Workspace, request: requests.Neighbors, say: Say) -> Iterator[Searched]:
    """The representations to compare with each other, protected from removal.

    Those of `--split`, or of train and, by the same prior, val; says the command if those of val are missing.
    Raises ChoiceError if there are none, or fewer than two images.
    """
    settings = part_of(request, NeighborsSettings)
    dataset = workspace.dataset(settings.dataset, "--dataset")
    split = settings.split or "train"
    first, _ = cached_for(workspace, dataset, split, request)
    found = {split: first}
    if settings.split is None:
        found = cached_splits(workspace, dataset, None, say, first)
    from rela.representations.embedder import choose_device

    with ExitStack() as held:
        held.enter_context(in_use(dataset.path, *(each.path for each in found.values())))
        parts = {split: with_names(dataset, split, each) for split, each in found.items()}
        made = Searched(
            dataset,
            shown_name(first),
            parts,
            {split: dataset.open(split) for split in found},
            choose_device(request.device),
        )
        if made.num_images < 2:
            raise ChoiceError(f"data set {dataset.name} has one image; nothing to compare")
        yield made


@contextmanager
def bar_of_blocks() -> "Iterator[Tell]":
    """Yield what the search tells its progress to."""
    with progress_bar(0, "compare", "block", leave=False) as bar:

        def tell(done: int, num_blocks: int) -> None:
            bar.total = num_blocks
            bar.update(done - bar.n)

        yield tell
