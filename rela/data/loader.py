"""The training loader: batches of views, prefetched by threads that run compiled kernels.

Each image is decoded once for all its views. There is no random state and no queue: a batch is a pure
function of (seed, epoch, step), threads fill it, and an error in a thread is raised where the batch is
requested.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rela.data.beton.reader import Beton, raise_undecodable
from rela.data.crops import check_crops
from rela.data.kernels import draws, samples
from rela.data.kernels.decode import NOT_DECODABLE
from rela.data.sampling import epoch_order, num_batches
from rela.data.views import View, specification
from rela.errors import ChoiceError
from rela.pipeline.cores import num_cores

_PREFETCH_BATCHES = 3
NO_CROPS = np.empty((0, 0, 5), np.uint16)


@dataclass(frozen=True)
class _Batch:
    """A batch being made: threads fill `out` and `status`, a block and an entry per row."""

    views: tuple[View, ...]
    rows: NDArray[np.int64]
    out: Tensor
    status: NDArray[np.uint8]
    parts: list["Future[None]"]
    crops: NDArray[np.uint16]

    def wait(self, beton: Beton) -> None:
        """Wait until it is full; raises a thread's exception, or DataError for a damaged image."""
        for part in self.parts:
            part.result()
        raise_undecodable(beton, self.rows, self.status)


def _in_parts(
    pool: ThreadPoolExecutor, num_threads: int, num_rows: int, fill: Callable[[int, int], None]
) -> list["Future[None]"]:
    """Run `fill(first, end)` over all rows, with an equal share for each thread."""
    share = -(-num_rows // num_threads)
    starts = range(0, num_rows, share)
    return [pool.submit(fill, first, min(first + share, num_rows)) for first in starts]


def _ahead(batches: Iterable[_Batch], at_once: int = _PREFETCH_BATCHES) -> Iterator[_Batch]:
    """Batches in order, with `at_once` of them in progress, the current one included."""
    pending: deque[_Batch] = deque()
    for begun in batches:
        pending.append(begun)
        if len(pending) == at_once:
            yield pending.popleft()
    yield from pending


class Maps(Protocol):
    """What a loader needs of `rela.training.maps.MapTargets`."""

    @property
    def values(self) -> Tensor:
        """[R, k² · d], a row per image or crop."""

    def window(self, beton: Beton) -> NDArray[np.float64]:
        """What a map shows of every image: top, left, height, width in pixels, [N, 4]."""


class ViewLoader:
    """Iterates over one epoch in batches; Lightning calls `sampler.set_epoch` before each epoch.

    A batch is a dict: `views`, a list of uint8 tensors [B, 3, S, S] in channels-last memory;
    `label` int64 [B]; `index` int64 [B]; and `targets`, a tensor [B, d] for each view, if `targets`
    [N, d] was given. With `crops` (uint16 [N, K, 5], see rela.data.crops) each view replays one of its
    image's K crops, and `targets` [N · K, d] has a row for each crop. With `maps` (see
    rela.training.maps), `maps` [B, k² · d] and `boxes` float32 [B, 4] for each view: what the view
    shows of its map; without crops no view may be mirrored then. With `pin_memory`, views and targets are in
    page-locked memory, which a GPU copies asynchronously. The incomplete last batch of an epoch is dropped
    (its batch-norm statistics would differ).

    `batch_size` is the total over all ranks and `accumulate` micro-batches: B is this rank's share of
    one micro-batch. `rows` (int64, distinct) restricts the epochs to these rows of the beton; the views
    of a row do not depend on the restriction. Raises ChoiceError if an epoch would have no batch, and
    DataError while iterating if an image of the beton is damaged.
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
        accumulate: int = 1,
        crops: NDArray[np.uint16] | None = None,
        rows: NDArray[np.int64] | None = None,
        maps: Maps | None = None,
    ) -> None:
        if crops is not None:
            check_crops(crops, beton)
        self.beton, self.views, self.batch_size = beton, views, batch_size // accumulate
        self.rows = np.arange(len(beton)) if rows is None else rows
        self.seed, self.data_ratio, self.accumulate = seed, data_ratio, accumulate
        self.targets, self.crops = targets, NO_CROPS if crops is None else crops
        self.maps, self._windows = maps, None if maps is None else maps.window(beton)
        self.num_threads = num_threads or num_cores()
        self.rank, self.world_size = 0, 1
        self.epoch = 0
        self._first_batch = 0
        self.pin_memory = False
        self.wait_seconds = 0.0  # time that the consumer waited for batches
        self._num_batches = num_batches(len(self.rows), data_ratio, batch_size) * accumulate

    def __len__(self) -> int:
        return self._num_batches

    @property
    def sampler(self) -> "ViewLoader":
        """Itself: Lightning calls `sampler.set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def start_at(self, batch: int) -> None:
        """Skip the first `batch` batches of the next epoch, which were seen before an interruption."""
        self._first_batch = batch

    def set_rank(self, rank: int, world_size: int) -> None:
        """Take slice `rank` of `world_size` of every batch; raises ChoiceError if it does not divide."""
        if self.batch_size % world_size:
            raise ChoiceError(
                f"a batch of {self.batch_size} cannot be split over {world_size} devices"
            )
        self.rank, self.world_size = rank, world_size

    def set_views(self, views: tuple[View, ...], with_targets: bool) -> None:
        """Change the views from the next batch on, even within an epoch; they replay no crops.

        `with_targets`: batches keep their targets, with crops the mean over the image's crops.
        """
        if not with_targets:
            self.targets = None
        elif self.targets is not None and self.crops.size:
            of_images = self.targets.view(*self.crops.shape[:2], -1)
            self.targets = of_images.mean(1, dtype=torch.float32)
        self.views, self.crops, self.maps = views, NO_CROPS, None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, first_batch, self._first_batch = self.epoch, self._first_batch, 0
        order = self.rows[epoch_order(len(self.rows), self.seed, epoch, self.data_ratio)]
        batches = order[: self._num_batches * self.batch_size].reshape(self._num_batches, -1)
        share = self.batch_size // self.world_size
        slices = batches[:, self.rank * share : (self.rank + 1) * share]
        with ThreadPoolExecutor(self.num_threads, "rela-loader") as pool:
            try:
                start = time.perf_counter()
                steps = range(first_batch, self._num_batches)
                for batch in _ahead(self._begin(pool, slices[step], epoch) for step in steps):
                    if batch.views != self.views or batch.crops is not self.crops:
                        # it was started before the views changed
                        batch = self._begin(pool, batch.rows, epoch)
                    batch.wait(self.beton)
                    result = self._result(batch, epoch)
                    self.wait_seconds += time.perf_counter() - start
                    yield result
                    start = time.perf_counter()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor, rows: NDArray[np.int64], epoch: int) -> _Batch:
        """Start filling one batch; `out` has one block per view."""
        specs = specification(self.views)
        view_bytes = np.array([view.size * view.size * 3 for view in self.views], np.int64)
        offsets = np.concatenate([[0], np.cumsum(view_bytes * len(rows))[:-1]]).astype(np.int64)
        num_bytes = int(view_bytes.sum()) * len(rows)
        out = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=self.pin_memory)
        status = np.full(len(rows), NOT_DECODABLE, np.uint8)
        storage, seed, crops = self.beton.storage(), np.uint64(self.seed), self.crops

        def fill(first: int, end: int) -> None:
            samples.load_views(
                *storage,
                rows[first:end],
                seed,
                np.uint64(epoch),
                specs,
                crops,
                out.numpy(),
                offsets,
                first,
                status,
            )

        parts = _in_parts(pool, self.num_threads, len(rows), fill)
        return _Batch(self.views, rows, out, status, parts, crops)

    def _result(self, batch: _Batch, epoch: int) -> dict[str, Any]:
        result: dict[str, Any] = {
            "views": _split_views(batch),
            "label": torch.from_numpy(self.beton.labels[batch.rows]),
            "index": torch.from_numpy(batch.rows),
        }
        if self.targets is not None:
            result["targets"] = self._targets_of(self.targets, batch, epoch)
        if self.maps is not None:
            result["maps"] = self._targets_of(self.maps.values, batch, epoch)
            result["boxes"] = [self._boxes(batch, epoch, view) for view in range(len(batch.views))]
        return result

    def _boxes(self, batch: _Batch, epoch: int, view: int) -> Tensor:
        """What a view shows of the maps, float32 [B, 4]: top, left, bottom, right as shares of the map.

        A crop that is replayed has a map of its own.
        """
        if batch.crops.shape[1] or self._windows is None:
            return torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(len(batch.rows), 1)
        boxes = draws.draw_boxes(
            np.uint64(self.seed), np.uint64(epoch), batch.rows, view,
            specification(batch.views)[view], self.beton.heights, self.beton.widths,
        )  # fmt: skip
        shown = self._windows[batch.rows]
        start = (boxes[:, :2] - shown[:, :2]) / shown[:, 2:]
        end = start + boxes[:, 2:] / shown[:, 2:]
        return torch.from_numpy(np.concatenate([start, end], axis=1).astype(np.float32))

    def _targets_of(self, targets: Tensor, batch: _Batch, epoch: int) -> list[Tensor]:
        """One [B, d] for each view: the same for all, or that of the crop that the view replays."""
        num_crops = batch.crops.shape[1]
        if num_crops == 0:
            return [self._rows_of(targets, batch.rows)] * len(batch.views)
        seed = np.uint64(self.seed)
        rows = [
            draws.replayed_rows(seed, np.uint64(epoch), batch.rows, view, num_crops)
            for view in range(len(batch.views))
        ]
        return [self._rows_of(targets, r) for r in rows]

    def _rows_of(self, targets: Tensor, rows: NDArray[np.int64]) -> Tensor:
        shape = (len(rows), targets.shape[1])
        out = torch.empty(shape, dtype=targets.dtype, pin_memory=self.pin_memory)
        return torch.index_select(targets, 0, torch.from_numpy(rows), out=out)


def _split_views(batch: _Batch) -> list[Tensor]:
    """Split the flat buffer into one channels-last tensor per view, without copying."""
    tensors = []
    start = 0
    for view in batch.views:
        end = start + len(batch.rows) * view.size * view.size * 3
        flat = batch.out[start:end]
        tensors.append(flat.view(len(batch.rows), view.size, view.size, 3).permute(0, 3, 1, 2))
        start = end
    return tensors


def in_batches(rows: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """`rows` in pieces of `batch_size`; the last may be shorter."""
    return [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]


class CenterCropLoader:
    """Iterates once over batches of rows of a beton: uint8 [B, 3, S, S], for embedding and evaluation.

    `batches` is consumed lazily, a few batches ahead of the one that is yielded. Resizing is Pillow's,
    horizontal pass first, and the crop is torchvision's; see `rela.models.preprocessing`. For a GPU the
    batches are in pinned memory and the next ones are loaded while it computes. On a CPU loading and
    computing take turns: loader threads that interrupt some threads of a convolution delay the others.
    """

    inputs_per_image = 1

    def __init__(
        self,
        beton: Beton,
        batches: Iterable[NDArray[np.int64]],
        resize: int,
        crop: int,
        interpolation: int,
        num_threads: int | None = None,
        for_gpu: bool = False,
    ) -> None:
        self.beton, self.batches = beton, batches
        self.resize, self.crop, self.interpolation = resize, crop, interpolation
        self.num_threads = num_threads or num_cores()
        self.for_gpu = for_gpu

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yields (rows int64 [B], images)."""
        with ThreadPoolExecutor(self.num_threads, "rela-loader") as pool:
            try:
                begun = (self._begin(pool, rows) for rows in self.batches)
                for batch in _ahead(begun, _PREFETCH_BATCHES if self.for_gpu else 1):
                    batch.wait(self.beton)
                    yield batch.rows, batch.out.permute(0, 3, 1, 2)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor, rows: NDArray[np.int64]) -> _Batch:
        shape = (len(rows) * self.inputs_per_image, self.crop, self.crop, 3)
        out = torch.empty(shape, dtype=torch.uint8, pin_memory=self.for_gpu)
        status = np.full(len(rows), NOT_DECODABLE, np.uint8)

        def fill(first: int, end: int) -> None:
            self._load(rows[first:end], out.numpy(), first, status)

        parts = _in_parts(pool, self.num_threads, len(rows), fill)
        return _Batch((), rows, out, status, parts, NO_CROPS)

    def _load(
        self, rows: NDArray[np.int64], out: NDArray[np.uint8], first: int, status: NDArray[np.uint8]
    ) -> None:
        samples.load_center_crops(
            *self.beton.storage(), rows, self.resize, self.interpolation, out, first, status
        )


class ReplayedCropLoader(CenterCropLoader):
    """The same with K crops of each image instead of the centre: uint8 [B · K, 3, S, S].

    `crops` is uint16 [N, K, 5] from `rela.data.crops`; the K crops of an image are consecutive.
    """

    def __init__(
        self,
        beton: Beton,
        batches: Iterable[NDArray[np.int64]],
        crops: NDArray[np.uint16],
        size: int,
        interpolation: int,
        num_threads: int | None = None,
        for_gpu: bool = False,
    ) -> None:
        super().__init__(beton, batches, size, size, interpolation, num_threads, for_gpu)
        self.crops, self.inputs_per_image = crops, crops.shape[1]

    def _load(
        self, rows: NDArray[np.int64], out: NDArray[np.uint8], first: int, status: NDArray[np.uint8]
    ) -> None:
        samples.load_crops(
            *self.beton.storage(), rows, self.crops, self.interpolation, out, first, status
        )
