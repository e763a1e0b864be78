"""`rela rm` and `rela convert --replace` (rela.stages.remove).

- what depends on a thing is named, with the commands that keep it and that remove it, which work;
- names of two kinds are told apart; unknown names, and what a job uses, are refused; damaged things go;
- a data set of other images is replaced whole, or stays whole if the new images are bad;
- a run goes on with another data set of the same images.
"""

import shutil
from pathlib import Path

import pytest
from command_line import TINY, Rela, read_json
from pictures import MakeTree
from PIL import Image

from rela.pipeline.locks import in_use
from rela.stages.report.reproduction import commands_for
from rela.stages.workspace.workspace import Workspace

ROOT = Path("workspace")


@pytest.fixture
def embedded(rela: Rela, images: Path) -> list[Path]:
    """The data set `images` with representations."""
    rela("embed", "images", "--prior", "random:timm:test_resnet", "--image-size", 16)
    return list((ROOT / "representations").glob("[!.]*"))


def there() -> set[str]:
    """Names of all artifacts."""
    return {p.parent.name for p in ROOT.glob("*/[!.]*/manifest.json")}


def test_what_depends_is_named_and_goes_or_stays(rela: Rela, embedded: list[Path]):
    (representations,) = embedded
    said = rela("rm", "images", exit_code=2).output
    assert f"representations {representations.name}: features of its images" in said
    assert "`rela rm images --dependents`" in said and "`rela rm images --force`" in said
    assert there() == {"images", representations.name}
    would = rela("rm", "images", "--dependents", "--dry-run").output
    assert "would remove data set images" in would and representations.name in would
    assert there() == {"images", representations.name}
    assert f"kept representations {representations.name}" in rela("rm", "images", "--force").output
    assert there() == {representations.name}
    rela("convert", "images")
    found = read_json(rela("rm", "images", "--dependents", "--json"))
    assert {thing["name"] for thing in found["removed"]} == {"images", representations.name}
    assert there() == set()


def test_a_run_and_a_data_set_of_one_name(rela: Rela, images: Path):
    rela("train", "--prior", "none", *TINY, "--epochs", 1, "--name", "images")
    said = rela("rm", "images", exit_code=2).output
    assert "`rela rm dataset:images` or `rela rm run:images`" in said
    assert "run images: trained on it" in rela("rm", "dataset:images", exit_code=2).output
    rela("rm", "run:images")
    assert there() == {"images"} and (ROOT / "datasets" / "images").is_dir()
    assert "nothing called run:images" in rela("rm", "run:images", exit_code=2).output
    assert "nothing called ../x" in rela("rm", "../x", exit_code=2).output


def test_a_run_goes_on_with_a_data_set_of_the_same_images(rela: Rela, images: Path):
    rela("train", "--prior", "none", *TINY, "--epochs", 1, "--name", "first")
    shutil.copytree(ROOT / "runs/first", ROOT / "runs/half")
    (ROOT / "runs/half/manifest.json").unlink()
    rela("eval", "first")
    rela("convert", "images", "--name", "copy")
    said = rela("rm", "images", "copy", exit_code=2).output  # the last two of them
    assert "run first: trained on it" in said and "run half" in said
    said = rela("rm", "images", exit_code=2).output
    assert "run first: trained on it; data set copy has the same images" in said
    assert "run half: not finished; data set copy" in said
    rela("rm", "images", "--force")
    assert "data set copy" in rela("eval", "first").output
    assert "data set copy" in rela("eval", "first", "--protocol", "knn200").output
    assert commands_for(Workspace(ROOT), Workspace(ROOT).run("first"))[1].startswith(
        "rela train copy "
    )
    rela("export", "first", "--to", "hdf5-features")
    assert "run half is finished" in rela("train", "--resume", "--name", "half").output
    rela("train", "--resume", "--name", "first", "--epochs", 2)
    assert "trained on it" in rela("rm", "copy", exit_code=2).output


def test_features_of_a_run_go_with_it_unless_something_is_made_of_them(rela: Rela, images: Path):
    rela("train", "--prior", "none", *TINY, "--epochs", 1, "--name", "first")
    rela("embed", "--prior", "first")
    rela("embed", "--prior", "first", "--split", "val")
    would = rela("rm", "first", "--dry-run").output
    assert "would remove run first" in would and would.count("would remove representations") == 2
    rela("train", "--prior", "first", *TINY, "--epochs", 1, "--name", "second")
    said = rela("rm", "first", exit_code=2).output
    assert "another" not in said and "on run first:\n  representations images-train-first" in said
    rela("rm", "second")
    [targets] = (ROOT / "targets").glob("[!.]*")
    rela("rm", targets.name)
    rela("rm", "first")
    assert there() == {"images"}


def test_every_name_that_a_list_prints_is_accepted(rela: Rela, embedded: list[Path]):
    rows = read_json(rela("priors", "list", "--json"))["priors"]
    (prior,) = (row["prior"] for row in rows if row["embedded"])
    rela("embed", "images", "--prior", prior, "--split", "val")
    said = rela("rm", prior, exit_code=2).output
    assert f"`rela rm {embedded[0].name}`" in said and "2 things are made by prior" in said
    rela("rm", embedded[0].name)
    assert f"{prior}?" in rela("rm", f"{prior}z", exit_code=2).output
    shutil.copytree("workspace/datasets/images", ROOT / "representations/.parts-0123")
    assert ".parts-0123" in rela("cache", "ls").output
    rela("rm", prior, ".parts-0123")
    assert there() == {"images"} and not (ROOT / "representations/.parts-0123").exists()


def test_what_a_job_uses_stays_and_what_is_damaged_goes(rela: Rela, embedded: list[Path]):
    with in_use(embedded[0]):
        assert "is in use" in rela("rm", embedded[0].name, exit_code=75).output
    (embedded[0] / "manifest.json").write_text("{")
    rela("rm", embedded[0].name)
    assert not embedded[0].exists()


def test_an_unfinished_run_is_removed(rela: Rela, images: Path):
    unfinished = ROOT / "runs" / "r"
    unfinished.mkdir(parents=True)
    (unfinished / "config.json").write_text("{}")
    assert "name what to remove" in rela("rm", exit_code=2).output
    rela("rm", "r")
    assert not unfinished.exists()


def test_a_data_set_is_replaced(rela: Rela, embedded: list[Path], make_tree: MakeTree):
    before = (ROOT / "datasets/images/manifest.json").read_bytes()
    Image.new("RGB", (16, 16), "red").save("images/train/ant/new.png")
    Path("images/train/ant/bad.png").write_bytes(b"no image")
    rela("convert", "images", "--replace", exit_code=65)
    assert (ROOT / "datasets/images/manifest.json").read_bytes() == before
    Path("images/train/ant/bad.png").unlink()
    said = rela("convert", "images", exit_code=2).output
    assert "`rela convert images --replace`" in said
    said = rela("convert", "images", "--replace").output
    assert (
        f"these still belong to the old one: representations {embedded[0].name} (features of its images)"
        in said
    )
    assert (ROOT / "datasets/images/manifest.json").read_bytes() != before
    assert "already exists, unchanged" in rela("convert", "images", "--replace").output
