"""The backbone's features of an epoch's last images: enough to see whether they collapse."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rela.ranking import effective_rank, feature_std

_FEWEST_ROWS, _MOST_ROWS = 128, 1024
_SHARE = (
    1 / 128
)  # of an epoch's images: eigenvalues of so many rows take well under 1 % of its time
_DECIMALS = 4  # a record is the same bytes wherever eigenvalues differ in their last bits


class FeatureSample:
    """Keeps the features [B, F] of the last of `num_batches` micro-batches with `num_images` in all.

    At most `num_rows` rows of them: 128 to 1,024, by the length of the epoch. They stay on their
    device, where nothing waits for them, until the epoch ends. Of several processes each keeps those
    of its own images.
    """

    def __init__(self, num_batches: int, num_images: int) -> None:
        self.num_batches = num_batches
        self.num_rows = min(max(round(_SHARE * num_images), _FEWEST_ROWS), _MOST_ROWS)
        self._kept: list[Tensor] = []

    def add(self, batch: int, features: Tensor) -> None:
        """Take the features of micro-batch `batch` (from 0) if it is one of the epoch's last."""
        if self.num_batches - batch <= math.ceil(self.num_rows / len(features)):
            self._kept.append(features.detach()[: self.num_rows])

    def figures(self) -> dict[str, float]:
        """`effective_rank` (1 to F) and `feature_std` (0 collapsed, 1 isotropic), see rela.ranking.

        Nothing where fewer than two rows are finite.
        """
        if not self._kept:
            return {}
        rows = torch.cat([kept.float().cpu() for kept in self._kept])[-self.num_rows :].numpy()
        rows = rows[np.isfinite(rows).all(axis=1)]
        if len(rows) < 2:
            return {}
        found = {"effective_rank": effective_rank(rows), "feature_std": feature_std(rows)}
        return {name: round(value, _DECIMALS) for name, value in found.items()}

    def clear(self) -> None:
        """Before the next epoch."""
        self._kept.clear()

    def state_dict(self) -> dict[str, Any]:
        """What the epoch that is under way has kept so far."""
        return {"kept": [kept.cpu() for kept in self._kept]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with that."""
        self._kept = list(state["kept"])
