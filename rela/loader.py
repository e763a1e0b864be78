"""The training loader: batches of views, made ahead by threads that run compiled kernels.

One decode per image serves all its views. There is no random state and no queue: a batch is a pure
function of (seed, epoch, step), threads fill it, and whatever goes wrong in a thread is raised where
the batch is asked for.
"""

import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rela.beton import Beton, raise_undecodable
from rela.errors import ChoiceError, DataError
from rela.kernels import samples
from rela.order import epoch_order
from rela.views import View, specification

_PREFETCH_BATCHES = 3


@dataclass
class _Pending:
    """A batch in the making, with the views it is made for."""

    views: tuple[View, ...]
    rows: NDArray[np.int64]
    buffer: NDArray[np.uint8]
    status: NDArray[np.uint8]
    parts: list["Future[None]"]


class ViewLoader:
    """Iterates over one epoch in batches; Lightning calls `sampler.set_epoch` before each.

    A batch is a dict: `views`, a list of uint8 tensors [B, 3, S, S] in channels-last memory;
    `label` int64 [B]; `index` int64 [B]; and `target` [B, d] if `targets` [N, d] was given.
    The incomplete last batch of an epoch is left out (its batch-norm statistics would differ).

    `batch_size` counts over all ranks: after `set_rank`, B is this rank's share. Raises DataError if
    an epoch would have no batch at all, and while iterating if an image of the beton is damaged.
    """

    def __init__(
        self,
        beton: Beton,
        views: tuple[View, ...],
        batch_size: int,
        seed: int = 0,
        data_ratio: float = 1.0,
        targets: Tensor | None = None,
        num_threads: int | None = None,
    ) -> None:
        self.beton, self.views, self.batch_size = beton, views, batch_size
        self.seed, self.data_ratio, self.targets = seed, data_ratio, targets
        self.num_threads = num_threads or len(os.sched_getaffinity(0))
        self.rank, self.world_size = 0, 1
        self.epoch = 0
        self.wait_seconds = 0.0  # how long the consumer waited for batches
        chosen = int(data_ratio * len(beton))
        self._num_batches = chosen // batch_size
        if self._num_batches == 0:
            raise DataError(
                f"{chosen} images ({data_ratio:g} of {len(beton)}) do not fill one batch of "
                f"{batch_size}; lower --batch-size or raise --data-ratio"
            )

    def __len__(self) -> int:
        return self._num_batches

    @property
    def sampler(self) -> "ViewLoader":
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration visits."""
        self.epoch = epoch

    def set_rank(self, rank: int, world_size: int) -> None:
        """Take the slice `rank` of `world_size` of every batch; raises ChoiceError if uneven."""
        if self.batch_size % world_size:
            raise ChoiceError(
                f"a batch of {self.batch_size} cannot be split over {world_size} devices"
            )
        self.rank, self.world_size = rank, world_size

    def set_views(self, views: tuple[View, ...], with_targets: bool) -> None:
        """Change the views from the next batch on, also in the middle of an epoch."""
        self.views = views
        if not with_targets:
            self.targets = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        order = epoch_order(len(self.beton), self.seed, self.epoch, self.data_ratio)
        batches = order[: self._num_batches * self.batch_size].reshape(self._num_batches, -1)
        share = self.batch_size // self.world_size
        slices = batches[:, self.rank * share : (self.rank + 1) * share]
        with ThreadPoolExecutor(self.num_threads, "rela-loader") as pool:
            pending: deque[_Pending] = deque()
            try:
                for step in range(self._num_batches):
                    start = time.perf_counter()
                    for ahead in range(
                        step + len(pending), min(step + _PREFETCH_BATCHES, self._num_batches)
                    ):
                        pending.append(self._begin(pool, slices[ahead]))
                    batch = pending.popleft()
                    if batch.views != self.views:  # made before the views changed
                        batch = self._begin(pool, batch.rows)
                    finished = self._finish(batch)
                    self.wait_seconds += time.perf_counter() - start
                    yield finished
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor, rows: NDArray[np.int64]) -> _Pending:
        """Start filling one batch with all threads."""
        specs = specification(self.views)
        view_bytes = np.array([view.size * view.size * 3 for view in self.views], np.int64)
        offsets = np.concatenate([[0], np.cumsum(view_bytes * len(rows))[:-1]]).astype(np.int64)
        buffer = np.empty(int(view_bytes.sum()) * len(rows), np.uint8)
        status = np.full(len(rows), 255, np.uint8)
        storage = self.beton.storage()
        chunk = -(-len(rows) // self.num_threads)

        def fill(first: int) -> None:
            samples.load_views(
                *storage, rows[first : first + chunk], np.uint64(self.seed), np.uint64(epoch), specs,
                buffer, offsets, first, status,
            )  # fmt: skip

        epoch = self.epoch
        parts = [pool.submit(fill, first) for first in range(0, len(rows), chunk)]
        return _Pending(self.views, rows, buffer, status, parts)

    def _finish(self, batch: _Pending) -> dict[str, Any]:
        for part in batch.parts:
            part.result()
        raise_undecodable(self.beton, batch.rows, batch.status)
        index = torch.from_numpy(batch.rows)
        result: dict[str, Any] = {
            "views": _split_views(batch),
            "label": torch.from_numpy(self.beton.labels[batch.rows]),
            "index": index,
        }
        if self.targets is not None:
            result["target"] = self.targets.index_select(0, index)
        return result


def _split_views(batch: _Pending) -> list[Tensor]:
    """Cut the flat buffer into one channels-last tensor per view, without copying."""
    tensors = []
    start = 0
    for view in batch.views:
        end = start + len(batch.rows) * view.size * view.size * 3
        flat = torch.from_numpy(batch.buffer[start:end])
        tensors.append(flat.view(len(batch.rows), view.size, view.size, 3).permute(0, 3, 1, 2))
        start = end
    return tensors


class CenterCropLoader:
    """Iterates over rows of a beton once, in order: uint8 [B, 3, S, S], for embedding and evaluation.

    Resizing is Pillow's and the crop is torchvision's, bit for bit; see `rela.preprocessing`.
    """

    def __init__(
        self,
        beton: Beton,
        rows: NDArray[np.int64],
        resize: int,
        crop: int,
        interpolation: int,
        batch_size: int,
        num_threads: int | None = None,
    ) -> None:
        self.beton, self.rows = beton, rows
        self.resize, self.crop, self.interpolation = resize, crop, interpolation
        self.batch_size = batch_size
        self.num_threads = num_threads or len(os.sched_getaffinity(0))

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yields (rows int64 [B], images)."""
        starts = range(0, len(self.rows), self.batch_size)
        batches = [self.rows[start : start + self.batch_size] for start in starts]
        with ThreadPoolExecutor(self.num_threads, "rela-loader") as pool:
            pending: deque[
                tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint8], list[Any]]
            ] = deque()
            try:
                for step in range(len(batches)):
                    for ahead in range(
                        step + len(pending), min(step + _PREFETCH_BATCHES, len(batches))
                    ):
                        pending.append(self._begin(pool, batches[ahead]))
                    rows, out, status, parts = pending.popleft()
                    for part in parts:
                        part.result()
                    raise_undecodable(self.beton, rows, status)
                    yield rows, torch.from_numpy(out).permute(0, 3, 1, 2)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor, rows: NDArray[np.int64]) -> Any:
        out = np.empty((len(rows), self.crop, self.crop, 3), np.uint8)
        status = np.full(len(rows), 255, np.uint8)
        storage = self.beton.storage()
        chunk = -(-len(rows) // self.num_threads)

        def fill(first: int) -> None:
            samples.load_center_crops(
                *storage, rows[first : first + chunk], self.resize, self.interpolation, out, first,
                status,
            )  # fmt: skip

        parts = [pool.submit(fill, first) for first in range(0, len(rows), chunk)]
        return rows, out, status, parts
