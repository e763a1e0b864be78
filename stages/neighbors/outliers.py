"""The images of a data set that are least like the images nearest to them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.errors import one_line
from rela.options import part_of
from rela.pipeline import Say
from rela.result import Result, Table
from rela.stages import requests
from rela.stages.display import format_table, next_command
from rela.stages.neighbors.picture import picture_path, rows_of, write_picture
from rela.stages.neighbors.searched import MEASURE, Image, bar_of_blocks, searched
from rela.stages.settings import NeighborsSettings
from rela.stages.workspace.workspace import Workspace

_K = 10


@dataclass(frozen=True)
class Outlier(Image):
    """An image and its mean cosine distance to the k nearest other images, in [0, 2]."""

    distance: float


@dataclass(frozen=True, repr=False)
class Outliers(Result):
    """Images by their mean cosine distance to the `k` nearest, farthest first; `median`: of all images."""

    dataset: str
    splits: list[str]
    prior: str
    source: str | None
    k: int
    num_images: int
    median: float
    outliers: list[Outlier]
    picture: Path

    def shown(self) -> dict[str, Any]:
        """What was compared, and the farthest image."""
        return {
            "data set": self.dataset,
            "splits": ", ".join(self.splits),
            "prior": self.prior,
            "k": self.k,
            "median distance": self.median,
            "farthest": self.outliers[0].path,
            "picture": self.picture,
        }

    def tables(self) -> dict[str, Table]:
        """Farthest first."""
        rows = [[f"{o.distance:.4f}", o.split, o.class_name, o.path] for o in self.outliers]
        return {"outliers": (("distance", "split", "class", "path"), rows)}


def outliers(workspace: Workspace, request: requests.Neighbors, say: Say = print) -> Outliers:
    """Find the images with the largest mean distance to their k nearest, of all pairs.

    The mean of the features is subtracted first, see rela.representations.neighbors.mean_distances. Writes a
    picture of them.
    """
    import numpy as np

    from rela.representations.neighbors import mean_distances

    settings = part_of(request, NeighborsSettings)
    with searched(workspace, request, say) as bank:
        path = picture_path(settings.output, bank.dataset.name, "outliers")
        k = min(_K if settings.k is None else settings.k, bank.num_images - 1)
        with bar_of_blocks() as tell:
            distances = mean_distances(bank.matrices, k, bank.device, tell)
        farthest = np.argsort(-distances, kind="stable")[: settings.count].tolist()
        found = [
            Outlier(**vars(bank.image(row)), distance=round(float(distances[row]), 6))
            for row in farthest
        ]
        images = [(*bank.stored(each), f"{each.distance:.3f} {each.split}") for each in found]
        write_picture(path, rows_of(images))
    return Outliers(
        dataset=bank.dataset.name,
        splits=list(bank.parts),
        prior=bank.prior,
        source=bank.dataset.source,
        k=k,
        num_images=bank.num_images,
        median=round(float(np.median(distances)), 6),
        outliers=found,
        picture=path,
    )


def in_words(result: Outliers) -> str:
    """A table, farthest first."""
    return "\n".join(
        [
            f"outliers in data set {result.dataset} ({', '.join(result.splits)}, {result.num_images:,} "
            f"images), by {result.prior}; paths are relative to "
            f"{one_line(result.source or 'the folder of images')}",
            f"distance: mean over the {result.k} nearest images of 1 − {MEASURE}; the median of all images "
            f"is {result.median:.4f}",
            format_table(*result.tables()["outliers"]),
            f"picture of these: {result.picture}",
            next_command(
                "neighbors", "--duplicates", "--dataset", result.dataset, "--prior", result.prior
            ),
        ]
    )
