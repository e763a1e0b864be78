"""One image file × cached representations → the images of the data set that are most like it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.usage import in_use
from rela.errors import DataError, UnavailableError, one_line
from rela.options import check_options
from stages.cached_representations import find_cached, with_names
from stages.combine import requests_of
from stages.embed import prior_of
from stages.query import represent
from stages.settings import NeighborsSettings, PriorSettings
from stages.tables import format_table
from stages.workspace import Workspace


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

    The image is stored as the data set's were, and looked at by the same prior in the same way, or by
    all that were combined; so an image of the data set finds itself, with a similarity of 1 up to the
    rounding of what is stored (float16 rounds features below 6e-5 coarsely). Raises ChoiceError with
    the command to use if the representations are not there, DataError or UnavailableError for what is no
    image.
    """
    settings, described = settings or NeighborsSettings(), described or PriorSettings()
    check_options(settings)
    check_options(described)
    if not image.exists():
        raise UnavailableError(f"{one_line(str(image))}: no such image")
    if image.is_dir():
        raise DataError(
            f"{one_line(str(image))} is a folder; expected one image file, to look for its like"
        )
    dataset, name = workspace.dataset(settings.dataset), settings.prior
    requests = None if name is None else requests_of(workspace, dataset, name, described)
    found = find_cached(
        workspace,
        dataset,
        settings.split,
        requests,
        name,
        by_name=described == PriorSettings(),
        centre_crops_alone=True,
    )
    from rela.nearest import nearest

    with in_use(dataset.path, found.path):
        query = represent(workspace, image, dataset, found, requests or [], device, say)
        bank = with_names(dataset, settings.split, found)
        rows, similarities = nearest(bank.array, query, settings.count)
    labels = bank.labels[rows]
    return Neighbors(
        image=str(image),
        dataset=dataset.name,
        split=settings.split,
        prior=prior_of(found).name,
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
