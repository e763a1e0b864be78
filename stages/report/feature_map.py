"""Features of held-out images by one run: their map in two dimensions, and nearest neighbours."""

import base64
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rela.errors import UnavailableError, require
from rela.pipeline.locks import in_use
from rela.priors import PriorRequest
from rela.stages.embed.embed import embed
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.run import Run
from rela.stages.workspace.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PROJECTIONS = ("pca", "umap")
_MOST_POINTS = 1500
_UMAP_NEIGHBOURS = 15  # the authors' choice
_NUM_QUERIES, _NUM_NEIGHBOURS = 6, 8
_THUMBNAIL_PIXELS = 64


@dataclass(frozen=True)
class FeatureMap:
    """`points` [n, 2] and `labels` [n] (-1: no class) of images of one split, by run `run`."""

    run: str
    split: str
    projection: str
    points: "NDArray[np.float64]"
    labels: "NDArray[np.int64]"
    class_names: list[str]
    num_images: int


@dataclass(frozen=True)
class Thumbnail:
    """An image of the data set; `url` holds its pixels (data:image/png), `similarity` is a cosine."""

    url: str
    path: str
    class_name: str | None
    similarity: float | None = None


@dataclass(frozen=True)
class Neighbours:
    """A query image and its nearest images, nearest first."""

    query: Thumbnail
    found: list[Thumbnail]


def feature_map(
    workspace: Workspace, dataset: DataSet, run: Run, projection: str, say: Callable[[str], None]
) -> tuple[FeatureMap, list[Neighbours]]:
    """Map the run's features of the val images (train, if there are none), and find neighbours.

    Cached features are reused. Raises UnavailableError if `projection` needs an extra that is not
    installed.
    """
    import numpy as np

    from rela.representations.quality import sample_rows

    split = "val" if "val" in dataset.splits else "train"
    made = embed(workspace, dataset, PriorRequest(f"run:{run.name}"), split=split, say=say).artifact
    assert made is not None, "a report is never sharded"
    with in_use(made.path):
        values = made.matrix().values
        rows = np.sort(sample_rows(len(values), _MOST_POINTS))
        features = np.asarray(values[rows], np.float64)
    beton = dataset.open(split)
    labelled = dataset.content.labelled
    names = list(dataset.content.class_names) if labelled else ["all images"]
    labels = beton.labels[rows] if labelled else np.zeros(len(rows), np.int64)
    points = umap_plane(features) if projection == "umap" else principal_plane(features)
    found = FeatureMap(run.name, split, projection, points, labels, names, len(values))
    neighbours = _neighbours(features, rows, dataset, split, names if labelled else None)
    return found, neighbours


def principal_plane(features: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """[n, D] → [n, 2]: the first two principal components."""
    import numpy as np

    centred = features - features.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((len(features), 2))
    found = centred @ directions[:2].T  # fewer than two for one image or one feature
    plane[:, : found.shape[1]] = found
    return plane


def umap_plane(features: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """[n, D] → [n, 2] by UMAP (McInnes, Healy and Melville 2018), or by PCA for few images.

    Raises UnavailableError if umap-learn is not installed.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        umap = require("umap", "umap", "--projection umap", UnavailableError)
    import numpy as np

    if len(features) <= _UMAP_NEIGHBOURS:  # too few for a meaningful graph
        return principal_plane(features)
    mapped = umap.UMAP(n_neighbors=_UMAP_NEIGHBOURS, random_state=0, n_jobs=1).fit_transform(
        features
    )
    return np.asarray(mapped, np.float64)


def _neighbours(
    features: "NDArray[np.float64]",
    rows: "NDArray[np.int64]",
    dataset: DataSet,
    split: str,
    class_names: list[str] | None,
) -> list[Neighbours]:
    import numpy as np

    count = min(_NUM_NEIGHBOURS, len(rows) - 1)
    if count < 1:
        return []
    queries = np.linspace(0, len(rows) - 1, min(_NUM_QUERIES, len(rows))).astype(np.int64)
    found = [_nearest_others(features, query, count) for query in queries]
    order = np.stack([near for near, _ in found])
    cosines = np.stack([similar for _, similar in found])
    wanted = np.unique(np.concatenate([queries, order.ravel()]))
    urls = dict(zip(wanted.tolist(), _thumbnails(dataset, split, rows[wanted]), strict=True))
    index, labels = dataset.index(split), dataset.open(split).labels

    def thumbnail(position: int, similarity: float | None = None) -> Thumbnail:
        row = int(rows[position])
        name = None if class_names is None else class_names[labels[row]]
        return Thumbnail(urls[position], index[row]["path"], name, similarity)

    return [
        Neighbours(
            thumbnail(int(query)),
            [thumbnail(int(p), float(c)) for p, c in zip(near, similar, strict=True)],
        )
        for query, near, similar in zip(queries, order, cosines, strict=True)
    ]


def _nearest_others(
    features: "NDArray[np.float64]", query: int, count: int
) -> "tuple[NDArray[np.int64], NDArray[np.float32]]":
    """The rows nearest to a row, excluding itself, and their cosines."""
    from rela.representations.neighbors import nearest_neighbors

    rows, similarities = nearest_neighbors(features, features[query], count + 1)
    others = rows != query
    return rows[others][:count], similarities[others][:count]


def _thumbnails(dataset: DataSet, split: str, rows: "NDArray[np.int64]") -> list[str]:
    """Centre crops as data URLs, in the order of `rows`."""
    from PIL import Image

    from rela.data.kernels.resample import BICUBIC
    from rela.data.loader import CenterCropLoader, in_batches

    beton = dataset.open(split)
    side = min(_THUMBNAIL_PIXELS, int(min(beton.heights[rows].min(), beton.widths[rows].min())))
    urls = []
    batches: Any = in_batches(rows, 64)
    for _, pixels in CenterCropLoader(beton, batches, side, side, BICUBIC):
        for image in pixels.permute(0, 2, 3, 1).numpy():
            file = io.BytesIO()
            Image.fromarray(image).save(file, format="PNG", optimize=True)
            urls.append("data:image/png;base64," + base64.b64encode(file.getvalue()).decode())
    return urls
