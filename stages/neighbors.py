"""One image file × cached representations → the images of the data set that are most like it."""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifact import Artifact
from pipeline.usage import in_use
from rela.errors import ChoiceError, DataError, UnavailableError, one_line
from rela.options import check_options
from rela.priors import POOLED, PriorIdentity, PriorRequest
from rela.sources.sample import Sample
from stages.cached_representations import find_cached, with_names
from stages.convert import encoding_of
from stages.embed import prior_request
from stages.prior_records import KnownPrior, identify
from stages.settings import NeighborsSettings, PriorSettings
from stages.tables import format_table
from stages.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Neighbor:
    """An image of the data set: cosine similarity in [-1, 1], its class (None without one), its file.

    `path` is relative to the folder that was converted, `index` the row of the data set.
    """

    similarity: float
    class_name: str | None
    path: str
    index: int


@dataclass(frozen=True)
class Neighbors:
    """The nearest first, and by what they were found."""

    image: str
    dataset: str
    split: str
    prior: str
    source: str | None
    neighbors: list[Neighbor]


def neighbors(
    workspace: Workspace,
    image: Path,
    settings: NeighborsSettings | None = None,
    described: PriorSettings | None = None,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> Neighbors:
    """Find the images of a data set whose representations have the largest cosine with that of `image`.

    The image is stored as the data set's were, and looked at by the same prior in the same way; so an
    image of the data set finds itself, with a similarity of 1 up to the rounding of what is stored
    (float16 rounds features below 6e-5 coarsely). Raises ChoiceError with the command to use if the
    representations are not there, DataError or UnavailableError for what is no image.
    """
    settings, described = settings or NeighborsSettings(), described or PriorSettings()
    check_options(settings)
    check_options(described)
    if not image.exists():
        raise UnavailableError(f"{one_line(str(image))}: no such image")
    dataset, name = workspace.dataset(settings.dataset), settings.prior
    request = None if name is None else prior_request(dataset, name, **vars(described))
    found = find_cached(
        workspace,
        dataset,
        settings.split,
        None if request is None else [request],
        name,
        by_name=described == PriorSettings(),
        only_one_centre_crop=True,
    )
    identity = PriorIdentity.from_dict(found.manifest.content["prior"])
    prior = _same_prior(workspace, identity, found.manifest.content["run"], request)
    if prior.note:
        say(prior.note)
    query = _represent(image, dataset, prior, device)
    from rela.nearest import nearest

    with in_use(dataset.path, found.path):
        bank = with_names(dataset, settings.split, found)
        rows, similarities = nearest(bank.array, query, settings.count)
    labels = bank.labels[rows]
    return Neighbors(
        image=str(image),
        dataset=dataset.name,
        split=settings.split,
        prior=identity.name,
        source=dataset.manifest.provenance.get("source"),
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


def format_result(result: Neighbors) -> str:
    """A table, nearest first."""
    rows = [
        [f"{n.similarity:.4f}", None if n.class_name is None else one_line(n.class_name), one_line(n.path)]
        for n in result.neighbors
    ]  # fmt: skip
    return "\n".join(
        [
            f"nearest to {one_line(result.image)} in data set {result.dataset} ({result.split}), by "
            f"{result.prior}; paths are below {one_line(result.source or 'the folder of images')}",
            format_table(["similarity", "class", "path"], rows),
        ]
    )


def _same_prior(
    workspace: Workspace,
    identity: PriorIdentity,
    run: str | None,
    request: PriorRequest | None,
) -> KnownPrior:
    """The prior with this very identity: as it was asked for, or by what the representations tell."""
    for candidate in (request, _request_of(identity, run)):
        try:
            known = None if candidate is None else identify(workspace, candidate)
        except ChoiceError:
            continue  # its name alone, without the options, may mean nothing
        if known is not None and known.identity.key() == identity.key():
            return known
    raise ChoiceError(
        f"prior {identity.name} of these representations cannot be found by this name alone; give "
        "--prior, --weights, --arch, --seed and --layer as `rela embed` had them"
    )


def _request_of(identity: PriorIdentity, run: str | None) -> PriorRequest:
    """A request that may mean this prior."""
    if run is not None:
        return PriorRequest(f"run:{run}", layer=identity.layer)
    name, seed = identity.name, 0
    if identity.layer != POOLED:
        name = name.removesuffix(f"@{identity.layer}")
    seeded = re.fullmatch(r"(random:.+)-seed(\d{1,18})", name)
    if seeded is not None:
        name, seed = seeded[1], int(seeded[2])
    return PriorRequest(name, seed=seed, image_size=identity.image_size, layer=identity.layer)


def _represent(
    image: Path, dataset: Artifact, prior: KnownPrior, device: str
) -> "NDArray[np.float32]":
    """The image's representation [D]."""
    import numpy as np

    from rela.beton import open_beton
    from rela.beton_writer import write_beton
    from rela.embedding import Embedder

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "image.beton"
        samples = [Sample(image.name, -1)]
        written = write_beton(path, image.parent, samples, encoding_of(dataset), num_workers=1)
        for _, reason in written.bad_images:
            raise DataError(f"{one_line(str(image))}: {one_line(reason)}")
        embedder = Embedder(prior.load(), prior.identity.preprocessing, device)
        features: NDArray[np.float32] = embedder(open_beton(path), np.arange(1))[0]
    return features
