"""The images most similar to a query image, by cached representations."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError, DataError, UnavailableError, one_line
from rela.options import part_of
from rela.pipeline import Say
from rela.pipeline.files import read_regular
from rela.pipeline.locks import in_use
from rela.priors import PriorIdentity, PriorRequest
from rela.priors.prior import Combination
from rela.result import Result, Table
from rela.sources.source import Sample, content_sha256
from rela.stages import requests
from rela.stages.display import format_table, next_command
from rela.stages.neighbors.searched import cached_for
from rela.stages.priors.again import request_again
from rela.stages.priors.find import shown_name, with_names
from rela.stages.priors.identify import KnownPrior, identify
from rela.stages.settings import NeighborsSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.encoding import encoding_of
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rela.representations.named import NamedRepresentations


@dataclass(frozen=True)
class Neighbor:
    """An image of the data set: cosine similarity in [-1, 1], class (None without one), file.

    `path` is relative to the folder that was converted, `index` the row of the data set.
    """

    similarity: float
    class_name: str | None
    path: str
    index: int


@dataclass(frozen=True, repr=False)
class Neighbors(Result):
    """Neighbors, nearest first, and the representations that were searched."""

    image: str | None
    text: str | None
    dataset: str
    split: str
    prior: str
    source: str | None
    neighbors: list[Neighbor]

    def shown(self) -> dict[str, Any]:
        """What was searched for where."""
        return {
            "image": self.image,
            "text": self.text,
            "data set": self.dataset,
            "split": self.split,
            "prior": self.prior,
            "nearest": self.neighbors[0].path if self.neighbors else None,
        }

    def tables(self) -> dict[str, Table]:
        """Nearest first."""
        rows = [[f"{n.similarity:.4f}", n.class_name, n.path] for n in self.neighbors]
        return {"neighbors": (("similarity", "class", "path"), rows)}


def nearest_to(
    workspace: Workspace, image: Path, request: requests.Neighbors, say: Say = print
) -> Neighbors:
    """Find the images of a data set whose representations have the largest cosine with that of an image.

    A file of the data set has its cached row, and no prior is loaded. Any other image is encoded like the
    data set's images and embedded by the same prior, or by all priors of a combination. So an image of the
    data set finds itself with a similarity of 1, up to the rounding of the stored features (float16 rounds
    those below 6e-5 coarsely). Raises ChoiceError with the command
    to use if there are no representations, DataError or UnavailableError if `image` is not an image.
    """
    settings = part_of(request, NeighborsSettings)
    split = settings.split or "train"
    if not image.exists():
        raise UnavailableError(f"{one_line(str(image))}: no such image")
    if image.is_dir():
        raise DataError(f"{one_line(str(image))} is a folder; expected an image file")
    dataset = workspace.dataset(settings.dataset, "--dataset")
    found, asked = cached_for(workspace, dataset, split, request)
    import numpy as np

    from rela.representations.neighbors import nearest_neighbors

    with in_use(dataset.path, found.path):
        bank = with_names(dataset, split, found)
        row = _row_of(image, dataset, split)
        if row is not None:
            query = np.asarray(bank.array[row], np.float32)
        else:
            query = represent(workspace, image, dataset, found, asked, request.device, say)
        nearest = nearest_neighbors(bank.array, query, settings.count)
    return found_neighbors(dataset, split, found, bank, nearest, image=str(image))


def found_neighbors(
    dataset: DataSet,
    split: str,
    found: Representations,
    bank: "NamedRepresentations",
    nearest: "tuple[NDArray[np.int64], NDArray[np.float32]]",
    image: str | None = None,
    text: str | None = None,
) -> Neighbors:
    """The result, from rows and their similarities."""
    rows, similarities = nearest
    labels = bank.labels[rows]
    return Neighbors(
        image=image,
        text=text,
        dataset=dataset.name,
        split=split,
        prior=shown_name(found),
        source=dataset.source,
        neighbors=[
            Neighbor(
                round(float(similarity), 6),
                bank.class_names[label] if label >= 0 else None,
                bank.paths[row],
                int(row),
            )
            for row, label, similarity in zip(rows, labels, similarities, strict=True)
        ],
    )


def in_words(result: Neighbors) -> str:
    """A table, nearest first."""
    query, source = result.text or result.image, result.source or "the folder of images"
    return "\n".join(
        [
            f"nearest to {one_line(str(query))} in data set {result.dataset} ({result.split}), by "
            f"{result.prior}; paths are relative to {one_line(source)}",
            format_table(*result.tables()["neighbors"]),
            next_command("priors", "rank", result.dataset),
        ]
    )


def _row_of(image: Path, dataset: DataSet, split: str) -> int | None:
    """The row of the first image of the split that is this file, byte for byte."""
    try:
        digest = content_sha256(read_regular(image))
    except OSError:  # said where the image is decoded
        return None
    rows = dataset.index(split)
    return next((i for i, row in enumerate(rows) if row["source_sha256"] == digest), None)


def represent(
    workspace: Workspace,
    image: Path,
    dataset: DataSet,
    representations: Representations,
    requests: Sequence[PriorRequest],
    device: str,
    say: Say,
) -> "NDArray[np.floating[Any]]":
    """The vector [D] that `image` would have among `representations` of centre crops.

    For a combination, each prior embeds the image, and each vector is standardised like the component's
    rows. Priors come from `requests`, or from the identity recorded in the representations.
    Raises ChoiceError if one cannot be found, DataError if `image` is not an image.
    """
    import numpy as np

    from rela.representations.concatenation import fit_standardisation

    identity = representations.prior
    if not isinstance(identity, Combination):
        prior = _same_prior(workspace, identity, representations.content.run, requests)
        [vector] = _look(image, dataset, [prior], device, say)
        return vector
    components = workspace.components(representations)
    runs = [component.run for component in representations.content.components]
    priors = [
        _same_prior(workspace, each, run, requests)
        for each, run in zip(identity.components, runs, strict=True)
    ]
    blocks = []
    for vector, component in zip(
        _look(image, dataset, priors, device, say), components, strict=True
    ):
        rows = component.matrix().values
        blocks.append(fit_standardisation(rows).apply(vector[None])[0])
    return np.concatenate(blocks)


def _same_prior(
    workspace: Workspace, identity: PriorIdentity, run: str | None, requests: Sequence[PriorRequest]
) -> KnownPrior:
    """The prior with this identity, by a request or by the name in the representations."""
    for candidate in (*requests, request_again(workspace, (identity, run))):
        try:
            known = identify(workspace, candidate)
        except ChoiceError:
            continue  # the prior may need options in addition to its name
        if known.identity.key() == identity.key():
            return known
    raise ChoiceError(
        f"prior {identity.name} of these representations cannot be found by its name only; give "
        "--prior, --weights, --arch, --seed and --layer as `rela embed` had them"
    )


def _look(
    image: Path, dataset: DataSet, priors: Sequence[KnownPrior], device: str, say: Say
) -> "list[NDArray[np.float32]]":
    """The features of the image by each prior, encoded like the data set's images."""
    import numpy as np

    from rela.data.beton.reader import open_beton
    from rela.data.beton.writer import write_beton
    from rela.representations.embedder import Embedder

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "image.beton"
        samples = [Sample(image.name, -1)]
        written = write_beton(path, image.parent, samples, encoding_of(dataset), num_workers=1)
        for _, reason in written.bad_images:
            raise DataError(f"{one_line(str(image))}: {one_line(reason)}")
        vectors = []
        for prior in priors:
            if prior.note:
                say(prior.note)
            embedder = Embedder(prior.load(), prior.identity.preprocessing, device)
            vectors.append(embedder(open_beton(path), np.arange(1))[0])
        return vectors
