"""Targets that match the view: random crops of every image, drawn once and replayed in training.

The target of a whole image does not fit a view of half of it, or a mirrored view (FKD, arXiv 2112.01528;
DataCompDR, arXiv 2311.17049). Here the prior sees K crops of each image from the distribution of stage
1's views, and each view of stage 1 replays one of them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rela.data.beton.reader import Beton
from rela.data.views import specification, stage1_views
from rela.errors import DataError

# Increase it when the same plan gives other crops.
CROPS_VERSION = 1
# Above every seed of a run, so that crops do not repeat its draws.
_FIRST_SEED = 1 << 33


@dataclass(frozen=True)
class CropPlan:
    """`num_crops` random crops per image, drawn from `seed`."""

    num_crops: int
    seed: int = 0

    def draw(self, beton: Beton) -> NDArray[np.uint16]:
        """uint16 [N, K, 5]: top, left, height, width in pixels of the stored image, and flip."""
        from rela.data.kernels import draws

        spec = specification(stage1_views(1))[0]
        seed = np.uint64(_FIRST_SEED + self.seed)
        crops: NDArray[np.uint16] = draws.draw_crops(
            seed, spec, beton.heights, beton.widths, self.num_crops
        )
        return crops


def check_crops(crops: NDArray[np.uint16], beton: Beton) -> None:
    """Raise DataError unless every crop (uint16 [N, K, 5]) is inside its image of `beton`.

    The kernels that cut them out do not check.
    """
    if len(crops) != len(beton):
        raise DataError(f"crops of {len(crops)} images for {len(beton)}; embed this data set")
    boxes = crops.astype(np.uint32)
    top, left, height, width = (boxes[:, :, column] for column in range(4))
    inside = (top + height <= beton.heights[:, None]) & (left + width <= beton.widths[:, None])
    bad = np.flatnonzero(~(inside & (height > 0) & (width > 0)).all(axis=1))
    if bad.size:
        raise DataError(
            f"a crop of image {bad[0]} is not within the image of {beton.path}; embed the data set again"
        )
