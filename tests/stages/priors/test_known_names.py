"""Priors that a workspace knows, by the names that it shows.

- two files of one name, and one prior at two input sizes, are told apart in every list;
- every shown name is accepted by embed, train, eval, neighbors, recipes and Python, with nothing else,
  and needs no weights for what is cached;
- the commands that a report prints make the same representations in another workspace.
"""

import shlex
from pathlib import Path

import pytest
import torch
from command_line import Rela, read_json
from finished_runs import finished_run

from rela.models.backbones import build_backbone
from rela.stages.priors.find import open_representations
from rela.stages.report.reproduction import commands_for
from rela.stages.train.prior import chosen_representations
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

CNN = "shufflenet_v2_x0_5"
KNN = ("--protocol", "knn20")


@pytest.fixture
def two_files(rela: Rela, images: Path, tmp_path: Path) -> list[str]:
    """Representations by a/best.pth and b/best.pth; the names that the list shows."""
    for seed, folder in enumerate("ab"):
        (tmp_path / folder).mkdir()
        torch.save(build_backbone(CNN, 32, seed=seed).state_dict(), tmp_path / folder / "best.pth")
        options = ("--arch", CNN, "--image-size", 32)
        rela("embed", "--prior", f"file:{folder}/best.pth", *options)
    return names(rela, "file")


def names(rela: Rela, source: str) -> list[str]:
    rows = read_json(rela("priors", "list", "--json"))["priors"]
    return [row["prior"] for row in rows if row["source"] == source and row["embedded"]]


def test_two_files_of_one_name_are_told_apart_and_named(
    rela: Rela, two_files: list[str], tmp_path: Path
):
    assert len(set(two_files)) == 2 and all(name.startswith("best.pth#") for name in two_files)
    rows = read_json(rela("priors", "list", "--json"))["priors"]
    notes = {row["prior"]: row["note"] for row in rows}
    files = {name: notes[name].rpartition(", ")[2] for name in two_files}
    assert set(files.values()) == {str(tmp_path / f"{folder}/best.pth") for folder in "ab"}
    assert {row["prior"] for row in read_json(rela("status", "--json"))["representations"]} == set(
        files
    )
    ranked = read_json(rela("priors", "rank", "--json"))["priors"]
    assert {row["prior"] for row in ranked} == set(files)
    for command in (("embed",), ("neighbors", "images/train/ant/00.png")):
        said = rela(*command, "--prior", "best.pth", exit_code=2).stderr
        assert all(name in said for name in two_files)

    for file in files.values():
        Path(file).rename(f"{file}.away")
    workspace = Workspace(Path("workspace"))
    digests = set()
    for name in two_files:
        made = read_json(rela("embed", "--prior", name, "--json"))
        assert made["cached"]
        settings = TrainSettings(prior=name)
        found = chosen_representations(workspace, workspace.dataset(), settings, False, print)
        assert found is not None and found.name == Path(made["artifact"]["path"]).name
        query = "images/train/bee/02.png"
        nearest = read_json(rela("neighbors", query, "--prior", name, "--count", 1, "--json"))
        assert nearest["prior"] == name and nearest["neighbors"][0]["path"] == "train/bee/02.png"
        assert len(open_representations(workspace, name).array) == 24
        digests.add(found.prior.key()["weights_sha256"])
    assert len(digests) == 2
    said = rela("embed", "--prior", two_files[0], "--split", "val", exit_code=74).stderr
    assert f"{files[two_files[0]]}: no such weights file" in said.splitlines()[-1]

    for file in files.values():
        Path(f"{file}.away").rename(file)
    made = rela("embed", "--prior", two_files[0], "--split", "val", "--layer", "stage2", "--json")
    assert "best.pth@stage2" in read_json(made)["artifact"]["path"]  # options beside the name hold
    said = rela("embed", "--prior", "best.pth@48px", exit_code=2).stderr
    assert all(name in said for name in two_files)
    evaluated = read_json(rela("eval", "--prior", two_files[1], *KNN, "--json"))
    assert two_files[1] in str(evaluated)
    recipe = f'[[embed]]\ndataset = "images"\nprior = "{two_files[1]}"\n'
    Path("recipe.toml").write_text(recipe)
    plan = rela("run", "recipe.toml", "--dry-run").stdout.splitlines()
    assert any(two_files[1] in line and "there" in line.split() for line in plan)


def test_one_prior_at_two_sizes_is_told_apart(rela: Rela, images: Path):
    prior = f"random:{CNN}"
    for size in (32, 48):
        rela("embed", "--prior", prior, "--image-size", size)
    shown = [f"{prior}-seed0@{size}px" for size in (32, 48)]
    assert names(rela, "random") == shown
    for name in shown:
        assert read_json(rela("embed", "--prior", name, "--json"))["cached"]
    made = read_json(rela("embed", "--prior", f"{prior}@64px", "--layer", "stage2", "--json"))
    assert not made["cached"]
    assert f"{prior}-seed0@stage2@64px" in names(rela, "random")


def test_printed_commands_make_the_same_in_another_workspace(
    rela: Rela, two_files: list[str], tmp_path: Path
):
    """Weights, sizes, the number format and bad images are in them."""
    (tmp_path / "images/train/ant/bad.png").write_text("no picture")
    rela("convert", "images", "--name", "photos", "--on-bad-image", "skip")
    parts = ("--prior", two_files[0], "--prior", f"random:{CNN}@48px")
    rela("embed", "photos", *parts, "--dtype", "float32")
    workspace = Workspace(Path("workspace"))
    [joint] = [made for made in workspace.representations() if made.content.components]
    run = finished_run(workspace.root, "photos", CNN, "mine", prior=joint)
    *commands, train = commands_for(workspace, run)
    assert len(commands) == 4 and train.startswith("rela train photos --prior ")
    for command in commands:
        rela("--workspace", "other", *shlex.split(command)[1:])
    again = {made.fingerprint for made in Workspace(Path("other")).representations()}
    assert joint.fingerprint in again and len(again) == 3, commands
