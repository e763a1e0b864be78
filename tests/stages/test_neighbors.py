"""`rela neighbors`, and `rela embed` of a folder of images.

- similarities and their order are those that plain numpy finds in the HDF5 file;
- an image of the data set finds itself, whatever its format and however it was stored;
- representations that are not there, or several, end with one line and the command;
- a folder is converted once; the same files are the same data set, and the same images a cache hit.
"""

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from command_line import Rela, read_json, run_rela
from finished_runs import finished_run
from pictures import picture
from PIL import Image
from sklearn.metrics.pairwise import cosine_similarity

from rela.models.backbones import build_backbone
from rela.representations.neighbors import nearest_neighbors

CNN = "shufflenet_v2_x0_5"
PRIOR = ("--prior", f"random:{CNN}", "--image-size", 32)
# features of this untrained network are about 1e-6, which float16 rounds to some percent
EXACT = (*PRIOR, "--dtype", "float32")


@pytest.fixture
def embedded(rela: Rela, small_tree: Path) -> Rela:
    """The command line, with the data set `images` and its representations by a random prior."""
    rela("embed", small_tree, *EXACT)
    return rela


def stored(tmp_path: Path, which: str = "*") -> np.ndarray:
    [path] = (tmp_path / "workspace/representations").glob(f"{which}/representations.h5")
    with h5py.File(path) as file:
        return np.asarray(file["representations"][:], np.float64)


def copied(image: Path) -> Path:
    """The same image in another file, so that it has no cached row."""
    copy = image.parents[1] / f"copy-{image.name}"
    copy.write_bytes(image.read_bytes() + b"\0")
    return copy


def find(*arguments: Any) -> Any:
    return read_json(run_rela("neighbors", *arguments, "--json"))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_nearest_rows_are_those_of_scikit_learn(dtype: str):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((9000, 5)).astype(dtype)  # more than one block
    values[17] = 0
    query = rng.standard_normal(5).astype(np.float32)
    expected = cosine_similarity(values.astype(np.float64), query[None].astype(np.float64))[:, 0]
    rows, similarities = nearest_neighbors(values, query, 50)
    assert rows.tolist() == np.argsort(-expected, kind="stable")[:50].tolist()
    np.testing.assert_allclose(similarities, expected[rows], atol=2e-6)
    rows, similarities = nearest_neighbors(values, query, 20_000)
    assert sorted(rows) == list(range(9000))
    assert similarities[rows.tolist().index(17)] == 0
    assert nearest_neighbors(values, np.zeros(5, np.float32), 3)[0].tolist() == [0, 1, 2]


def test_neighbours_are_found_by_the_cosine_of_what_is_stored(embedded: Rela, tmp_path: Path):
    query = copied(tmp_path / "images/train/bee/03.png")
    found = find(query, "--count", 24)
    values = stored(tmp_path)
    expected = cosine_similarity(values[8 + 3][None], values)[0]
    assert [n["index"] for n in found["neighbors"][:1]] == [11]
    assert sorted(n["index"] for n in found["neighbors"]) == list(range(24))
    for neighbor in found["neighbors"]:
        assert neighbor["similarity"] == pytest.approx(expected[neighbor["index"]], abs=2e-6)
        assert neighbor["class_name"] == neighbor["path"].split("/")[1]
        assert (Path(found["source"]) / neighbor["path"]).is_file()
    similarities = [n["similarity"] for n in found["neighbors"]]
    assert similarities == sorted(similarities, reverse=True)
    table = embedded("neighbors", query, "--count", 3).stdout.splitlines()
    assert table[1].split() == ["similarity", "class", "path"]
    assert table[3].split() == ["1.0000", "bee", "train/bee/03.png"]
    assert len(table) == 7 and table[-1] == "next: `rela priors rank images`"


def test_an_image_finds_itself_in_any_encoding(rela: Rela, tmp_path: Path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(picture(i, 150, 190)).save(folder / f"{i}.jpg", quality=80)
        Image.fromarray(picture(10 + i, 150, 190)).save(folder / f"{i}.png")
    rela("convert", folder, "--write-mode", "jpg", "--jpeg-quality", 40, "--max-side", 100)
    rela("embed", *EXACT)
    for name in ("2.jpg", "2.png"):
        [nearest_one] = find(copied(folder / name), "--count", 1)["neighbors"]
        assert nearest_one["path"] == name
        assert nearest_one["similarity"] == pytest.approx(1, abs=2e-6)
        assert nearest_one["class_name"] is None


def test_a_run_a_layer_and_a_seed_are_priors_like_any_other(embedded: Rela, tmp_path: Path):
    finished_run(tmp_path / "workspace", "images", CNN, "mine")
    embedded("embed", "--prior", "run:mine")
    embedded("embed", "--prior", "mine", "--layer", "stage4")
    embedded("embed", *PRIOR, "--seed", 3, "--split", "val")
    query = copied(tmp_path / "images/val/cat/01.png")
    for options, which in (
        (("--prior", "run:mine"), "mine"),
        (("--prior", "mine"), "mine"),
        (("--prior", "mine", "--layer", "stage4"), "mine@stage4"),
        (("--prior", "mine@stage4"), "mine@stage4"),
    ):
        found = find(query, *options, "--count", 2)
        assert (found["prior"], len(found["neighbors"])) == (which, 2)
    itself = copied(tmp_path / "images/train/ant/02.png")
    [itself] = find(itself, "--prior", "mine", "--count", 1)["neighbors"]
    assert itself["path"] == "train/ant/02.png"
    assert itself["similarity"] == pytest.approx(1, abs=1e-5)  # float16, features of usual size
    for options in ((), (*PRIOR, "--seed", 3)):
        found = find(query, "--split", "val", *options)
        assert found["prior"] == f"random:{CNN}-seed3@32px"
        assert found["neighbors"][0]["path"] == "val/cat/01.png"
    several = embedded("neighbors", query, exit_code=2).stderr
    assert "3 representations" in several and "--prior" in several and "mine@stage4" in several


def test_an_image_of_the_data_set_has_its_cached_row(embedded: Rela, tmp_path: Path):
    """No prior is loaded for it; it may even be gone. Any other image needs it."""
    weights = tmp_path / "best.pth"
    torch.save(build_backbone(CNN, 32, seed=1).state_dict(), weights)
    embedded("embed", "--prior", f"file:{weights}", "--arch", CNN, "--image-size", 32)
    weights.unlink()
    query = tmp_path / "images/train/bee/03.png"
    for prior in ("best.pth", f"random:{CNN}-seed0@32px"):
        found = find(query, "--prior", prior, "--count", 3)
        assert found["prior"] == prior
        assert found["neighbors"][0]["index"] == 11
    [line] = embedded(
        "neighbors", copied(query), "--prior", "best.pth", exit_code=74
    ).stderr.splitlines()
    assert str(weights) in line


def test_missing_representations_name_the_command(embedded: Rela, tmp_path: Path):
    query = tmp_path / "images/train/bee/03.png"

    def line(*arguments: Any, status: int = 2) -> str:
        [said] = embedded("neighbors", *arguments, exit_code=status).stderr.splitlines()
        return str(said)

    assert "`rela embed images --prior resnet50`" in line(query, "--prior", "resnet50")
    assert "`rela embed images --prior resnet18 --split val`" in line(query, "--split", "val")
    assert "no finished run 'nope'" in line(query, "--prior", "run:nope")
    assert "found images" in line(query, "--dataset", "nope")
    # the features are there, but not those of this seed
    assert "has not been embedded" in line(query, *PRIOR, "--seed", 1)
    assert "no such image" in line(tmp_path / "nope.png", status=74)
    assert "is a folder; expected an image file" in line(tmp_path / "images", status=65)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    assert "not an image that Pillow can read" in line(text, status=65)


def test_random_crops_are_not_searched(rela: Rela, small_tree: Path):
    rela("convert", small_tree)
    rela("embed", *PRIOR, "--crops", 2)
    message = rela("neighbors", small_tree / "train/ant/00.png", exit_code=2).stderr
    assert "no prior has been embedded" in message


def test_an_image_is_embedded_by_all_priors_of_a_combination(embedded: Rela, tmp_path: Path):
    finished_run(tmp_path / "workspace", "images", CNN, "mine")
    embedded("embed", *EXACT, "--seed", 3)
    several = ("--prior", "mine", "--prior", f"random:{CNN}-seed3")
    embedded("embed", "images", *several, "--dtype", "float32")
    values = stored(tmp_path, "images-train-mine+*")
    query = copied(tmp_path / "images/train/cat/05.png")
    expected = cosine_similarity(values[16 + 5][None], values)[0]
    for named in (several, ("--prior", f"mine+random:{CNN}-seed3")):
        found = find(query, *named, "--count", 24)
        assert found["prior"] == f"mine+random:{CNN}-seed3@16px"  # it also is there at 32
        assert found["neighbors"][0]["path"] == "train/cat/05.png"
        similarities = [n["similarity"] for n in found["neighbors"]]
        order = [n["index"] for n in found["neighbors"]]
        np.testing.assert_allclose(similarities, expected[order], atol=1e-4)
    [component] = (tmp_path / "workspace/representations").glob("images-train-mine-*")
    shutil.rmtree(component)
    message = embedded("neighbors", query, *several, exit_code=2).stderr
    command = f"rela embed images --prior mine --prior random:{CNN}-seed3 --dtype float32"
    assert f"are missing; make them again with `{command}`" in message
    embedded(*command.split()[1:])  # 32 pixels are the data set's own
    assert find(query, *several)["neighbors"][0]["path"] == "train/cat/05.png"


def test_a_folder_is_converted_once_and_the_same_images_are_a_cache_hit(
    embedded: Rela, tmp_path: Path
):
    assert read_json(embedded("embed", "./images", *EXACT, "--json"))["cached"]
    shutil.copytree(tmp_path / "images", tmp_path / "other")
    result = embedded("embed", "other", *EXACT)
    assert "the images in other are data set images" in result.stderr
    assert [p.name for p in (tmp_path / "workspace/datasets").iterdir()] == ["images"]
    # other names, the same images
    shutil.move(tmp_path / "other/train/ant/00.png", tmp_path / "other/train/ant/000.png")
    result = read_json(embedded("embed", "other", *EXACT, "--json"))
    assert result["cached"]
    assert result["names"] == "workspace/datasets/other/train.csv"
    assert "000.png" in (tmp_path / result["names"]).read_text()


def test_a_folder_whose_name_is_taken_by_other_images_is_refused(embedded: Rela, tmp_path: Path):
    (tmp_path / "images/train/ant/00.png").unlink()
    [line] = embedded("embed", tmp_path / "images", *PRIOR, exit_code=2).stderr.splitlines()
    assert "rela convert" in line and "--name images-2" in line
    # by its name it is the data set, whatever lies in a folder of that name
    assert "already exist" in embedded("embed", "images", *EXACT).stdout
    assert "no such path" in embedded("embed", "./nope", *PRIOR, exit_code=2).stderr
    assert "found images" in embedded("embed", "nope", *PRIOR, exit_code=2).stderr
