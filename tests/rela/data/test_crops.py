"""Targets of K crops (rela.data.crops, the loaders' replay), against Pillow on the same files.

- crops lie inside their image, with stage 1's distribution; more crops begin with the fewer;
- the prior sees what Pillow cuts, resizes and mirrors;
- every view of stage 1 shows one of its image's crops, and its target is that crop's row;
- through the command line: rows of the file are the features of those crops, for any batch size
  or the shards; damage is noticed; training and evaluation use them.
"""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from betons import beton_of
from command_line import TINY, Rela
from pictures import picture
from PIL import Image
from torch import Tensor

from rela.data.beton.reader import Beton
from rela.data.crops import CropPlan
from rela.data.kernels.resample import BILINEAR
from rela.data.loader import ReplayedCropLoader, ViewLoader, in_batches
from rela.data.views import NORMALIZE_MEAN, NORMALIZE_STD, View, stage1_views
from rela.errors import DataError
from rela.models.backbones import build_backbone
from rela.representations.matrix_file import open_matrix

PRIOR = ("--prior", "random:shufflenet_v2_x0_5", "--image-size", 32)
SIDES = [(24, 24), (30, 20), (17, 41), (12, 12), (64, 48)]
PLAIN = View(10, jitter_probability=0, gray_probability=0)  # crops are replayed: no box of its own


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [Image.fromarray(picture(i, *SIDES[i % len(SIDES)])) for i in range(15)]


@pytest.fixture(scope="module")
def beton(tmp_path_factory: pytest.TempPathFactory, images: list[Image.Image]) -> Beton:
    root = tmp_path_factory.mktemp("images")
    for i, image in enumerate(images):
        image.save(root / f"{i}.png")
    return beton_of(root)


def cut(image: Image.Image, crop: np.ndarray, size: int) -> np.ndarray:
    """What a crop shows, by Pillow: uint8 [size, size, 3]."""
    top, left, height, width, flip = map(int, crop)
    shown = image.crop((left, top, left + width, top + height)).resize((size, size), Image.BILINEAR)
    return np.asarray(shown.transpose(Image.FLIP_LEFT_RIGHT) if flip else shown)


def test_crops_lie_inside_their_images_with_the_distribution_of_stage_one(beton: Beton):
    crops = CropPlan(400).draw(beton).astype(np.int64)
    top, left, height, width, flip = np.moveaxis(crops, 2, 0)
    assert (height > 0).all() and (width > 0).all()
    assert (top + height <= beton.heights[:, None]).all()
    assert (left + width <= beton.widths[:, None]).all()
    assert set(np.unique(flip)) == {0, 1}
    assert flip.mean() == pytest.approx(0.5, abs=0.03)
    square = np.flatnonzero(beton.heights == beton.widths)
    area = (height * width)[square] / (beton.heights[square] ** 2.0)[:, None]
    assert area.min() > 0.4 and area.max() <= 1  # (0.5, 1), rounded to pixels
    # crops that would leave the image are drawn again, so the larger half is a little rarer
    assert area.mean() == pytest.approx(0.72, abs=0.03)


def test_more_crops_extend_fewer_crops(beton: Beton):
    many = CropPlan(9).draw(beton)
    assert np.array_equal(many[:, :4], CropPlan(4).draw(beton))
    assert not np.array_equal(many, CropPlan(9, seed=1).draw(beton))
    assert len(np.unique(many[0], axis=0)) == 9  # narrow images often have but the central crop


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_the_prior_sees_what_pillow_cuts(beton: Beton, images: list[Image.Image], batch_size: int):
    crops = CropPlan(3).draw(beton)
    rows = np.array([4, 0, 14, 7])
    loader = ReplayedCropLoader(
        beton, in_batches(rows, batch_size), crops, 16, BILINEAR, num_threads=2
    )
    shown = np.concatenate([batch.permute(0, 2, 3, 1).numpy() for _, batch in loader])
    expected = [cut(images[row], crops[row, k], 16) for row in rows for k in range(3)]
    assert np.array_equal(shown, np.stack(expected))


def test_every_view_shows_the_crop_that_its_target_belongs_to(
    beton: Beton, images: list[Image.Image]
):
    crops = CropPlan(5).draw(beton)
    targets = torch.arange(len(images) * 5, dtype=torch.float32)[:, None]
    seen: set[int] = set()
    for epoch in range(20):
        loader = ViewLoader(beton, (PLAIN, PLAIN), 5, targets=targets, crops=crops)
        loader.set_epoch(epoch)
        for batch in loader:
            for view, target in zip(batch["views"], batch["targets"], strict=True):
                for pixels, row, index in zip(
                    view.permute(0, 2, 3, 1).numpy(), target[:, 0].long(), batch["index"],
                    strict=True,
                ):  # fmt: skip
                    assert row // 5 == index
                    shown = cut(images[index], crops[index, row % 5], 10).astype(int)
                    # Pillow takes the two directions in the order that is cheaper for it
                    assert np.abs(pixels - shown).max() <= 2
                    seen.add(int(row))
            first, second = (t[:, 0] for t in batch["targets"])
            assert (first != second).all()  # the two views of an image show two of its crops
    assert len(seen) == len(images) * 5


def test_replayed_crops_do_not_depend_on_batches_or_threads(beton: Beton):
    crops = CropPlan(4).draw(beton)
    targets = torch.arange(len(beton) * 4, dtype=torch.float32)[:, None]

    def by_index(batch_size: int, threads: int) -> dict[int, tuple[bytes, float]]:
        loader = ViewLoader(
            beton, stage1_views(8), batch_size, targets=targets, crops=crops, num_threads=threads
        )
        return {
            int(i): (batch["views"][1][n].numpy().tobytes(), float(batch["targets"][1][n, 0]))
            for batch in loader
            for n, i in enumerate(batch["index"])
        }

    assert by_index(5, 1) == by_index(3, 2) == by_index(15, 2)


def test_replay_ends_with_stage_one(beton: Beton):
    crops, views = CropPlan(4).draw(beton), (PLAIN, PLAIN)
    plain = list(ViewLoader(beton, views, 3))
    loader = ViewLoader(beton, views, 3, targets=torch.zeros(60, 2), crops=crops)
    for step, batch in enumerate(loader):
        replays = not torch.equal(batch["views"][0], plain[step]["views"][0])
        assert replays == (step < 2)
        if step == 1:
            loader.set_views(views, with_targets=False)  # the same views, drawn afresh from now on


def features_by_hand(folder: Path, crops: np.ndarray, names: list[str]) -> Tensor:
    """The random prior's features of every crop, with torch and Pillow only."""
    backbone = build_backbone("shufflenet_v2_x0_5", 32, seed=1 << 31).eval()
    pixels = [
        cut(Image.open(folder / name), crop, 32)
        for name, own in zip(names, crops, strict=True)
        for crop in own
    ]
    batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (NORMALIZE_MEAN, NORMALIZE_STD))
    with torch.no_grad():
        return backbone((batch - mean) / std)


def test_rows_of_the_file_are_the_features_of_the_crops(
    rela: Rela, small_tree: Path, tmp_path: Path
):
    rela("convert", small_tree)
    embed = ("embed", *PRIOR, "--crops", 3, "--dtype", "float32")
    assert "layer pooled, sees" in rela(*embed, "--batch-size", 7).stderr
    (path,) = tmp_path.glob("workspace/representations/*/representations.h5")
    with h5py.File(path) as file:
        found, crops = file["representations"][()], file["crops"][()]
        assert file.attrs["crops_per_image"] == 3
    assert crops.shape == (24, 3, 5)
    with open(next(tmp_path.glob("workspace/datasets/*/train.csv"))) as index:
        names = [line.split(",")[2] for line in index.read().splitlines()[1:]]
    # paths in the index are relative to the folder that was converted
    expected = features_by_hand(small_tree, crops, names)
    # ours are channels-last: sums in another order
    tolerance = 1e-4 * float(expected.abs().max())
    np.testing.assert_allclose(found, expected.numpy(), atol=tolerance)

    before = path.read_bytes()
    rela("--workspace", "other", "convert", small_tree)
    for shard in ("1/2", "0/2"):
        rela("--workspace", "other", *embed, "--shard", shard)
    (other,) = tmp_path.glob("other/representations/*/representations.h5")
    np.testing.assert_allclose(open_matrix(other).values, open_matrix(path).values, atol=2e-6)
    rela(*embed, "--batch-size", 5)
    assert path.read_bytes() == before

    rela("embed", *PRIOR)  # the centre crop is another artifact
    weights = set()
    for name, count in (("crops", 3), ("centre", 0)):
        train = ("train", "--crops", count, "--handover", 0.5, "--epochs", 2, *TINY)
        rela(*train, "--name", name)
        weights.add((tmp_path / f"workspace/runs/{name}/backbone.safetensors").read_bytes())
    rela("eval", "crops")
    assert len(weights) == 2


@pytest.mark.parametrize("column", [0, 4])
def test_changed_crops_are_refused(rela: Rela, small_tree: Path, tmp_path: Path, column: int):
    rela("embed", small_tree, *PRIOR, "--crops", 2)
    (path,) = tmp_path.glob("workspace/representations/*/representations.h5")
    with h5py.File(path, "r+") as file:
        file["crops"][3, 1, column] += 1
    with pytest.raises(DataError, match="the crops were changed"):
        open_matrix(path)
