"""The loaders.

Covers: what a batch holds, against the beton; the same pixels for any number of threads, batch size,
position and restart, other ones in other epochs; slices of ranks; changing views in the middle of an
epoch; targets joined by index; the data ratio; some rows; one order per epoch; errors out of threads;
no thread left behind; centre crops against torchvision.
"""

import threading
from collections.abc import Iterable
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
import torch
from betons import in_memory
from pictures import picture
from PIL import Image
from torchvision import transforms

from rela.data.kernels import samples
from rela.data.loader import CenterCropLoader, ViewLoader, in_batches
from rela.data.sampling import epoch_order
from rela.data.views import View, stage1_views
from rela.errors import ChoiceError

N = 24
MILD = View(16, scale=(0.5, 1.0))
STRONG = View(12, blur_probability=0.5, solarize_probability=0.5)


@pytest.fixture(scope="module")
def images():
    return [picture(i, 20 + i % 7, 34 - i % 5) for i in range(N)]


@pytest.fixture(scope="module")
def beton(images):
    return in_memory(images, num_classes=5)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def by_index(loader: ViewLoader) -> dict[int, bytes]:
    """The pixels of all views of every image of one epoch."""
    found = {}
    for batch in loader:
        for k, index in enumerate(batch["index"].tolist()):
            assert index not in found
            found[index] = b"".join(view[k].numpy().tobytes() for view in batch["views"])
    return found


def assert_equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key in one:
        ours, theirs = (d[key] if key == "views" else [d[key]] for d in (one, other))
        assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True)), key


def assert_all_equal(one: Iterable[dict], other: Iterable[dict]) -> None:
    for a, b in zip(one, other, strict=True):
        assert_equal(a, b)


def loader_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("rela-loader")]


# A batch


def test_a_batch_holds_views_labels_and_indices(beton):
    batches = list(ViewLoader(beton, (MILD, STRONG), 6))
    assert len(batches) == 4
    for batch in batches:
        assert set(batch) == {"views", "label", "index"}
        assert [tuple(view.shape) for view in batch["views"]] == [(6, 3, 16, 16), (6, 3, 12, 12)]
        for view in batch["views"]:
            assert view.dtype == torch.uint8
            assert view.is_contiguous(memory_format=torch.channels_last)
        assert batch["label"].tolist() == beton.labels[batch["index"]].tolist()
    assert sorted(torch.cat([batch["index"] for batch in batches]).tolist()) == list(range(N))


def test_a_view_without_randomness_is_the_resized_image(beton, images):
    plain = View(
        16, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip_probability=0, jitter_probability=0,
        gray_probability=0,
    )  # fmt: skip
    for batch in ViewLoader(beton, (plain,), 8):
        for index, view in zip(batch["index"].tolist(), batch["views"][0], strict=True):
            image = Image.fromarray(images[index])
            side = min(image.size)  # the whole cannot have ratio 1: the central square
            left, top = (image.width - side) // 2, (image.height - side) // 2
            cut = image.crop((left, top, left + side, top + side))
            expected = np.asarray(cut.resize((16, 16), Image.Resampling.BILINEAR))
            np.testing.assert_array_equal(view.permute(1, 2, 0).numpy(), expected)


def test_the_views_of_an_image_differ(beton):
    for batch in ViewLoader(beton, (MILD, MILD), 8):
        one, other = batch["views"]
        assert all(not a.equal(b) for a, b in zip(one, other, strict=True))


def test_later_batches_do_not_overwrite_earlier_ones(beton):
    kept = list(ViewLoader(beton, (MILD,), 4))
    copies = [batch["views"][0].clone() for batch in ViewLoader(beton, (MILD,), 4)]
    assert all(batch["views"][0].equal(copy) for batch, copy in zip(kept, copies, strict=True))


def test_the_incomplete_last_batch_is_left_out(beton):
    loader = ViewLoader(beton, (MILD,), 7)
    assert len(loader) == 3 == len(list(loader))


# The same pixels, however they are made


@pytest.mark.parametrize("num_threads", [1, 2, 3, 50])
def test_pixels_do_not_depend_on_the_number_of_threads(beton, num_threads):
    one, other = (ViewLoader(beton, (MILD, STRONG), 8, num_threads=n) for n in (1, num_threads))
    assert_all_equal(one, other)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 12, 24])
def test_pixels_do_not_depend_on_batch_size_and_position(beton, batch_size):
    expected = by_index(ViewLoader(beton, (MILD, STRONG), 6))
    assert by_index(ViewLoader(beton, (MILD, STRONG), batch_size)) == expected


def test_a_restart_gives_the_same_epoch(beton):
    loader = ViewLoader(beton, (MILD,), 6, seed=4)
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        continued = list(loader)
    restarted = ViewLoader(beton, (MILD,), 6, seed=4)
    restarted.set_epoch(3)
    assert_all_equal(continued, restarted)


def test_an_epoch_can_be_seen_twice(beton):
    loader = ViewLoader(beton, (MILD,), 6)
    assert by_index(loader) == by_index(loader)


def test_epochs_and_seeds_differ_in_order_and_pixels(beton):
    seen = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        loader = ViewLoader(beton, (MILD,), 6, seed=seed)
        loader.set_epoch(epoch)
        seen.append(by_index(loader))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert list(seen[one]) != list(seen[other])
        assert all(seen[one][index] != seen[other][index] for index in range(N))


def test_changing_the_epoch_waits_for_the_next_iteration(beton):
    expected = list(ViewLoader(beton, (MILD,), 2, num_threads=1))
    loader = ViewLoader(beton, (MILD,), 2, num_threads=1)
    for batch, whole in zip(loader, expected, strict=True):
        loader.set_epoch(7)
        assert_equal(batch, whole)


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_the_slices_of_all_ranks_are_the_whole_batch(beton, world_size):
    ranks = [ViewLoader(beton, (MILD, STRONG), 6) for _ in range(world_size)]
    for rank, loader in enumerate(ranks):
        loader.set_rank(rank, world_size)
        assert len(loader) == 4
    for whole, *parts in zip(ViewLoader(beton, (MILD, STRONG), 6), *ranks, strict=True):
        joined = {key: torch.cat([part[key] for part in parts]) for key in ("index", "label")}
        joined["views"] = [
            torch.cat(views) for views in zip(*(p["views"] for p in parts), strict=True)
        ]
        assert_equal(joined, whole)


def test_an_uneven_slice_is_refused(beton):
    with pytest.raises(ChoiceError, match="a batch of 6 cannot be split over 4"):
        ViewLoader(beton, (MILD,), 6).set_rank(0, 4)


# Changing the views


@pytest.mark.parametrize("after", [0, 1, 3, 7])
@pytest.mark.parametrize("views", [(STRONG, STRONG), (MILD, STRONG), (STRONG,), (MILD,) * 3])
def test_new_views_begin_with_the_very_next_batch(beton, views, after):
    fresh = list(ViewLoader(beton, views, 3))
    before = list(ViewLoader(beton, stage1_views(16), 3))
    loader = ViewLoader(beton, stage1_views(16), 3)
    for step, batch in enumerate(loader):
        assert_equal(batch, before[step] if step <= after else fresh[step])
        if step == after:
            loader.set_views(views, with_targets=False)
    assert step == 7


def test_new_views_stay_for_the_next_epoch(beton):
    loader, fresh = (ViewLoader(beton, views, 6) for views in ((MILD,), (STRONG,)))
    next(iter(loader))
    loader.set_views((STRONG,), with_targets=False)
    for either in (loader, fresh):
        either.set_epoch(1)
    assert by_index(loader) == by_index(fresh)


def test_new_views_keep_or_drop_targets(beton):
    for stay in (True, False):
        loader = ViewLoader(beton, (MILD,), 6, targets=torch.zeros(N, 2))
        batches = iter(loader)
        assert "targets" in next(batches)
        loader.set_views((STRONG,), with_targets=stay)
        assert all(("targets" in batch) == stay for batch in batches)


# Targets


def test_targets_are_joined_by_index(beton):
    targets = torch.stack([torch.arange(N), -torch.arange(N)], dim=1).to(torch.float16)
    for epoch in range(2):
        loader = ViewLoader(beton, (MILD, STRONG), 5, targets=targets)
        loader.set_epoch(epoch)
        for batch in loader:
            for joined in batch["targets"]:
                assert joined.dtype == torch.float16
                assert joined[:, 0].tolist() == batch["index"].tolist()
                assert joined[:, 1].tolist() == (-batch["index"]).tolist()


# The data ratio and the order


@pytest.mark.parametrize(("ratio", "expected"), [(0.5, 12), (0.25, 6), (0.3, 7), (1.0, 24)])
def test_a_ratio_draws_fresh_images_every_epoch(beton, ratio, expected):
    loader = ViewLoader(beton, (MILD,), 1, data_ratio=ratio)
    epochs = []
    for epoch in range(12):
        loader.set_epoch(epoch)
        epochs.append([int(batch["index"]) for batch in loader])
    assert all(len(set(epoch)) == len(epoch) == expected for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 12
    assert {index for epoch in epochs for index in epoch} == set(range(N))


@pytest.mark.parametrize("num_samples", [100, 1000, 50_000])
def test_a_ratio_is_rounded_down_from_its_decimal_value(num_samples):
    percents = range(1, 101)
    found = {p: len(epoch_order(num_samples, 0, 0, p / 100)) for p in percents}
    assert found == {p: int(Fraction(p, 100) * num_samples) for p in percents}


def test_an_order_is_a_permutation_and_a_ratio_its_beginning():
    whole = epoch_order(1000, 3, 5)
    assert sorted(whole.tolist()) == list(range(1000))
    assert epoch_order(1000, 3, 5, 0.25).tolist() == whole[:250].tolist()


def test_every_image_is_as_likely_at_every_place():
    orders = np.array([epoch_order(8, 0, epoch) for epoch in range(4000)])
    counts = np.array([np.bincount(orders[:, place], minlength=8) for place in range(8)])
    assert np.abs(counts - 500).max() < 5 * np.sqrt(500)


def test_a_subset_smaller_than_a_batch_is_refused(beton):
    words = r"12 of 24 images do not fill one batch of 13.*--data-ratio"
    with pytest.raises(ChoiceError, match=words):
        ViewLoader(beton, (MILD,), 13, data_ratio=0.5)
    assert len(ViewLoader(beton, (MILD,), 12, data_ratio=0.5)) == 1


# Some rows


def test_all_rows_equal_the_default(beton):
    expected = ViewLoader(beton, (MILD,), 6)
    assert_all_equal(ViewLoader(beton, (MILD,), 6, rows=np.arange(N)), expected)


def test_a_subset_of_rows_has_the_same_pixels_in_its_own_order(beton):
    whole = by_index(ViewLoader(beton, (MILD, STRONG), 6))
    rows = np.array([20, 3, 7, 8, 15, 1])
    loader = ViewLoader(beton, (MILD, STRONG), 3, rows=rows)
    some = by_index(loader)
    assert some == {row: whole[row] for row in rows.tolist()}
    loader.set_epoch(1)
    again = by_index(loader)
    assert again.keys() == some.keys() and list(again) != list(some)


def test_fewer_rows_than_a_batch_are_refused(beton):
    with pytest.raises(ChoiceError, match="5 images do not fill one batch of 6"):
        ViewLoader(beton, (MILD,), 6, rows=np.arange(5))


# Threads


def fail_at(monkeypatch, name: str, call: int) -> None:
    """Let call number `call` of a kernel raise."""
    kernel, calls = getattr(samples, name), []

    def failing(*arguments):
        calls.append(1)
        if len(calls) > call:
            raise RuntimeError("broken on purpose")
        kernel(*arguments)

    monkeypatch.setattr(samples, name, failing)


@pytest.mark.parametrize(
    ("kernel", "call"), [("load_views", 0), ("load_views", 4), ("load_center_crops", 2)]
)
def test_an_error_in_a_thread_is_raised_in_the_loop(beton, monkeypatch, kernel, call):
    fail_at(monkeypatch, kernel, call)
    loader = {
        "load_views": ViewLoader(beton, (MILD,), 4, num_threads=2),
        "load_center_crops": CenterCropLoader(beton, in_batches(np.arange(N), 4), 16, 16, 0, 2),
    }[kernel]
    with pytest.raises(RuntimeError, match="broken on purpose"):
        list(loader)


def test_breaking_out_of_an_epoch_ends_its_threads(beton):
    loader = ViewLoader(beton, (MILD,), 2, num_threads=2)
    for _ in range(5):
        for _batch in loader:
            break
    assert not loader_threads()


def test_an_error_in_the_loop_ends_the_threads(beton):
    def use():
        for _batch in ViewLoader(beton, (MILD,), 2, num_threads=2):
            raise ValueError("in the training step")

    with pytest.raises(ValueError, match="in the training step"):
        use()
    assert not loader_threads()


def test_two_loaders_can_run_at_once(beton):
    expected = by_index(ViewLoader(beton, (MILD,), 4))
    one, other = {}, {}
    for both in zip(ViewLoader(beton, (MILD,), 4), ViewLoader(beton, (MILD,), 4), strict=True):
        for found, batch in zip((one, other), both, strict=True):
            for index, view in zip(batch["index"].tolist(), batch["views"][0], strict=True):
                found[index] = view.numpy().tobytes()
    assert one == other == expected


# Centre crops


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("interpolation", [0, 1])
def test_center_crops_are_torchvisions_in_the_order_of_the_rows(
    beton, images, num_threads, interpolation
):
    mode = (transforms.InterpolationMode.BILINEAR, transforms.InterpolationMode.BICUBIC)
    theirs = transforms.Compose(
        [transforms.Resize(18, mode[interpolation]), transforms.CenterCrop(16)]
    )
    rows = np.array([5, 3, 3, 20, 0, 11, 23])
    loader = CenterCropLoader(beton, in_batches(rows, 3), 18, 16, interpolation, num_threads)
    seen = []
    for found, batch in loader:
        assert batch.shape == (len(found), 3, 16, 16) and batch.dtype == torch.uint8
        for row, view in zip(found.tolist(), batch, strict=True):
            expected = np.asarray(theirs(Image.fromarray(images[row])))
            np.testing.assert_array_equal(view.permute(1, 2, 0).numpy(), expected)
            seen.append(row)
    assert seen == rows.tolist()


def test_breaking_out_of_center_crops_ends_the_threads(beton):
    loader = CenterCropLoader(beton, in_batches(np.arange(N), 2), 16, 16, 0)
    assert len(list(islice(loader, 2))) == 2
    assert not loader_threads()
