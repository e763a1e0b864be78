"""How the loaders work ahead, and what they say.

Covers: rows are shared evenly between threads; no more batches are in progress than allowed, in order;
waiting is measured; targets of crops are averaged when the views change; defaults; the words of refusals.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from betons import in_memory
from pictures import picture

from rela.data.beton.reader import Beton
from rela.data.kernels import samples
from rela.data.loader import ViewLoader, _ahead, _in_parts, in_batches
from rela.data.views import View
from rela.errors import ChoiceError
from rela.pipeline.cores import num_cores

N = 8
VIEW = View(8, scale=(0.5, 1.0))


@pytest.fixture(scope="module")
def beton() -> Beton:
    return in_memory([picture(i, 12 + i, 20 - i) for i in range(N)], num_classes=3)


@pytest.mark.parametrize(
    ("num_threads", "num_rows", "expected"),
    [
        (1, 5, [(0, 5)]),
        (2, 5, [(0, 3), (3, 5)]),
        (4, 8, [(0, 2), (2, 4), (4, 6), (6, 8)]),
        (9, 2, [(0, 1), (1, 2)]),
    ],
)
def test_every_thread_has_an_equal_share_of_the_rows(num_threads, num_rows, expected):
    filled: list[tuple[int, int]] = []
    with ThreadPoolExecutor(1) as pool:
        _in_parts(pool, num_threads, num_rows, lambda *part: filled.append(part))
    assert filled == expected


@pytest.mark.parametrize("at_once", [1, 3, 10])
def test_so_many_batches_are_begun_before_one_is_used(at_once: int):
    begun: list[int] = []

    def begin() -> Iterator[int]:
        for number in range(6):
            begun.append(number)
            yield number

    for number in _ahead(begin(), at_once):  # type: ignore[arg-type]
        assert begun == list(range(min(6, number + at_once)))
    assert number == 5


def test_a_training_works_ahead(beton: Beton, monkeypatch: pytest.MonkeyPatch):
    begun: list[int] = []
    begin = ViewLoader._begin
    monkeypatch.setattr(ViewLoader, "_begin", lambda *all: begun.append(1) or begin(*all))
    for step, _ in enumerate(ViewLoader(beton, (VIEW,), 1)):
        assert min(N, step + 2) <= len(begun) <= min(N, step + 4)  # and none twice
    assert len(begun) == N


def test_time_is_counted_only_while_a_batch_is_waited_for(
    beton: Beton, monkeypatch: pytest.MonkeyPatch
):
    load = samples.load_views
    monkeypatch.setattr(samples, "load_views", lambda *all: (time.sleep(0.02), load(*all)))
    loader = ViewLoader(beton, (VIEW,), 2, num_threads=1)
    start, elsewhere = time.perf_counter(), 0.0
    for _ in loader:
        busy = time.perf_counter()
        time.sleep(0.03)
        elsewhere += time.perf_counter() - busy
    whole = time.perf_counter() - start
    assert 0.02 <= loader.wait_seconds <= whole - elsewhere


def test_new_views_take_the_mean_target_of_the_crops(beton: Beton):
    crops = np.tile(np.array([0, 0, 8, 8, 0], np.uint16), (N, 3, 1))
    targets = torch.randn(N * 3, 5, generator=torch.Generator().manual_seed(0)).half()
    expected = targets.float().numpy().reshape(N, 3, 5).mean(axis=1)
    loader = ViewLoader(beton, (VIEW, VIEW), 4, targets=targets, crops=crops)
    loader.set_views((VIEW, VIEW), with_targets=True)
    for batch in loader:
        for joined in batch["targets"]:
            assert joined.dtype == torch.float32
            np.testing.assert_allclose(joined, expected[batch["index"]], rtol=1e-6)


def test_the_same_views_without_crops_begin_with_the_very_next_batch(beton: Beton):
    """Batches that were begun replay crops, though their views are the same."""
    crops = np.tile(np.array([0, 0, 8, 8, 0], np.uint16), (N, 1, 1))
    loader = ViewLoader(beton, (VIEW,), 2, crops=crops)
    fresh = list(ViewLoader(beton, (VIEW,), 2))
    for step, batch in enumerate(loader):
        assert batch["views"][0].equal(fresh[step]["views"][0]) == (step > 0)
        if step == 0:
            loader.set_views((VIEW,), with_targets=False)


def test_defaults_are_seed_zero_all_images_and_every_core(beton: Beton):
    one, other = ViewLoader(beton, (VIEW,), 4), ViewLoader(beton, (VIEW,), 4, 0, 1.0, None, 1, 1)
    for a, b in zip(one, other, strict=True):
        assert a["index"].equal(b["index"]) and a["views"][0].equal(b["views"][0])
    assert one.num_threads == num_cores() and other.num_threads == 1


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_micro_batches_share_a_batch(beton: Beton, accumulate: int):
    loader = ViewLoader(beton, (VIEW,), 4, accumulate=accumulate)
    whole = [batch["index"] for batch in ViewLoader(beton, (VIEW,), 4)]
    found = [batch["index"] for batch in loader]
    assert len(loader) == len(found) == 2 * accumulate
    assert all(len(index) == 4 // accumulate for index in found)
    assert torch.cat(found).equal(torch.cat(whole))


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (1.0, "8 images do not fill one batch of 9; lower --batch-size to 8 or less"),
        (
            0.5,
            "4 of 8 images do not fill one batch of 9; lower --batch-size to 4 or less, or "
            "raise --data-ratio",
        ),
    ],
)
def test_too_large_a_batch_is_refused_in_these_words(beton: Beton, ratio: float, words: str):
    with pytest.raises(ChoiceError) as caught:
        ViewLoader(beton, (VIEW,), 9, data_ratio=ratio)
    assert str(caught.value) == words


def test_rows_in_batches_are_all_rows_in_order():
    found = in_batches(np.arange(10, 17), 3)
    assert [rows.tolist() for rows in found] == [[10, 11, 12], [13, 14, 15], [16]]


def test_an_epoch_that_is_left_loads_no_more(beton: Beton, monkeypatch: pytest.MonkeyPatch):
    load, begun = samples.load_views, list[int]()

    def slow(*arguments: object) -> None:
        begun.append(1)
        time.sleep(0.3 if len(begun) == 2 else 0)
        load(*arguments)

    monkeypatch.setattr(samples, "load_views", slow)
    for _ in ViewLoader(beton, (VIEW,), 1, num_threads=1):
        break
    assert len(begun) == 2  # of three that were asked for
