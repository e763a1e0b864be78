"""`rela neighbors --duplicates` and `--outliers`.

- groups, similarities and distances are those of plain numpy on the cached features;
- a group with images of train and val is named as leakage, and comes first;
- the picture shows the stored pixels of what was found, and replaces no other file.
"""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from command_line import Rela, read_json
from PIL import Image
from sklearn.metrics.pairwise import cosine_similarity

import rela as library
from rela.errors import ChoiceError

PRIOR = ("--prior", "random:shufflenet_v2_x0_5", "--image-size", 32, "--dtype", "float32")
COPIES = {  # copy: original
    "val/bee/copy.png": "train/ant/03.png",
    "train/cat/copy.png": "train/cat/01.png",
    "val/cat/a.png": "val/ant/00.png",
    "val/cat/b.png": "val/ant/00.png",
}


@pytest.fixture
def copied(rela: Rela, small_tree: Path) -> Rela:
    """The command line, with a data set of images and copies of some, of which train is embedded."""
    for copy, original in COPIES.items():
        shutil.copyfile(small_tree / original, small_tree / copy)
    rela("embed", small_tree, *PRIOR)
    return rela


def stored(workspace: Path, split: str) -> np.ndarray:
    [path] = (workspace / "representations").glob(f"*-{split}-*/representations.h5")
    with h5py.File(path) as file:
        return np.asarray(file["representations"][:], np.float64)


def test_duplicates_in_train_and_val_are_leakage(copied: Rela, tmp_path: Path):
    result = copied("neighbors", "--duplicates", "--threshold", 0.99999)
    assert "only train is embedded; `rela embed images --prior random" in result.stderr
    assert "leakage" not in result.stdout and result.stdout.count("train/cat/") == 2
    command = result.stderr.split("`")[1].split()[1:]
    copied(*command, *PRIOR[2:])  # whose printed name brings the rest

    found = read_json(copied("neighbors", "--duplicates", "--threshold", 0.99999, "--json"))
    groups = [{image["path"] for image in group["images"]} for group in found["groups"]]
    assert groups[0] == {"train/ant/03.png", "val/bee/copy.png"}  # although others are as similar
    assert {"train/cat/01.png", "train/cat/copy.png"} in groups
    assert {"val/ant/00.png", "val/cat/a.png", "val/cat/b.png"} in groups
    assert [group["leakage"] for group in found["groups"]] == [True, False, False]
    assert found["groups"][0]["class_names"] == ["ant", "bee"]
    assert [image["split"] for image in found["groups"][0]["images"]] == ["train", "val"]
    assert (found["num_images"], found["num_val_leaked"], found["splits"]) == (
        40,
        1,
        ["train", "val"],
    )

    words = copied("neighbors", "--duplicates", "--threshold", 0.99999, "--count", 1).stdout
    assert "7 of 40 images, in 3 groups" in words
    assert "leakage: 1 group has images of train and of val" in words
    assert "classes: 2 groups have images of several classes" in words
    assert "2 more groups" in words and "picture of this: images-duplicates.png" in words
    with Image.open(tmp_path / "images-duplicates.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    with Image.open(tmp_path / "images/train/ant/03.png") as image:  # 16 pixels, enlarged 6 times
        expected = np.asarray(image.convert("RGB")).repeat(6, axis=0).repeat(6, axis=1)
    for left in (6, 6 + 102):
        assert np.array_equal(pixels[26:122, left : left + 96], expected)


def test_similarities_and_distances_are_those_of_numpy(copied: Rela, tmp_path: Path):
    copied("embed", "images", *PRIOR, "--split", "val")
    values = np.concatenate([stored(tmp_path / "workspace", split) for split in ("train", "val")])
    cosines = cosine_similarity(values - values.mean(axis=0))
    np.fill_diagonal(cosines, -2)
    threshold = float(np.median(cosines.max(axis=1)))
    found = library.neighbors(duplicates=True, threshold=threshold)
    images = [image for group in found.groups for image in group.images]
    assert len(images) == 20
    for image in images:
        row = image.index + (25 if image.split == "val" else 0)
        assert image.similarity == pytest.approx(cosines[row].max(), abs=2e-6)
        assert image.class_name == image.path.split("/")[1]
    assert library.neighbors(duplicates=True, split="val", threshold=1.0).splits == ["val"]

    odd = library.neighbors(outliers=True, k=3, count=5)
    distances = 1 - np.sort(cosines, axis=1)[:, -3:].mean(axis=1)
    rows = [each.index + (25 if each.split == "val" else 0) for each in odd.outliers]
    assert rows == np.argsort(-distances)[:5].tolist()
    assert [o.distance for o in odd.outliers] == pytest.approx(distances[rows], abs=2e-6)
    assert odd.median == pytest.approx(np.median(distances), abs=2e-6)
    words = copied("neighbors", "--outliers", "--k", 3, "--count", 5).stdout
    assert odd.outliers[0].path in words and "picture of these: images-outliers.png" in words


def test_the_picture_replaces_its_own_kind_alone(copied: Rela, tmp_path: Path):
    for _ in range(2):
        copied("neighbors", "--outliers", "--count", 2)
    mine = tmp_path / "images-outliers.png"
    mine.write_bytes(b"mine")
    with pytest.raises(ChoiceError, match="is no picture of `rela neighbors`; choose another"):
        library.neighbors(outliers=True)
    assert mine.read_bytes() == b"mine"
    copied("neighbors", "--outliers", "--output", tmp_path / "other.png")
    with Image.open(tmp_path / "other.png") as picture:
        assert picture.size == (6 + 8 * 102, 6 + 2 * 122)
    assert not list(tmp_path.glob(".*"))
