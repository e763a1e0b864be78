"""A damaged result is reported with the commands that remove it and make it again, whatever it is.

Each kind of result is damaged in one byte. What `rela cache verify` prints is pasted, and all is as before:
the same results by the same fingerprints. Of an unreadable manifest, only the kind of command is known.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from command_line import TINY, Rela, read_json, run_rela
from damages import flip_bit
from pictures import SMALL_TREE, save_tree

from rela.models.backbones import build_backbone
from rela.pipeline.manifest import MANIFEST_NAME, Manifest

NAME = "random:timm:test_resnet"
PLACE = ["--workspace", "else where"]
FILES = {
    "a data set": "datasets/pictures/train.beton",
    "its names": "datasets/pictures/val.csv",
    "vectors of a layer": "representations/pictures-train-*layer3-????????????/*.h5",
    "vectors of a file": "representations/pictures-train-own.pth-*/*.h5",
    "vectors of crops": "representations/pictures-train-*2crops*/*.h5",
    "vectors of val": "representations/pictures-val-*/*.h5",
    "maps": "representations/*-1x1-*/*.h5",
    "a combination": "representations/*+*/*.h5",
    "targets": "targets/*/targets.h5",
    "a run": "runs/first/backbone.safetensors",
    "a longer run": "runs/*2*/config.json",
}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of every kind, in a workspace whose name has a space."""
    root = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        save_tree(root / "images", SMALL_TREE)
        torch.save(build_backbone("timm:test_resnet", seed=3).state_dict(), "own.pth")
        for command in (
            ["convert", "images", "--name", "pictures", "--background", "black"],
            ["embed", "--prior", "file:own.pth", "--arch", "timm:test_resnet"],
            ["embed", "--prior", NAME, "--layer", "layer3", "--dense", 1, "--dense-width", 5],
            ["embed", "--prior", NAME, "--seed", 3, "--crops", 2, "--dtype", "float32"],
            ["embed", "--prior", NAME, "--split", "val", "--std", "0.3"],
            ["embed", "--prior", f"{NAME}-seed7", "--prior", f"{NAME}-seed8"],
            ["train", "--prior", "own.pth", *TINY, "--epochs", 1, "--name", "first"],
            ["train", "--resume", "--name", "first", "--epochs", 2],
        ):
            run_rela(*PLACE, *command)
    return root


@pytest.fixture
def here(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it; the images stay where they were converted from."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("RELA_WORKSPACE", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(state / PLACE[1], PLACE[1])
    return tmp_path


def results() -> dict[str, str]:
    """Fingerprints of all results, by name without them."""
    found = Path(PLACE[1]).glob(f"*/[!.]*/{MANIFEST_NAME}")
    return {p.parent.name: Manifest.read(p.parent).fingerprint for p in found}


@pytest.mark.parametrize("what", FILES)
def test_the_printed_commands_make_it_again(rela: Rela, here: Path, what: str):
    before = results()
    [damaged] = Path(PLACE[1]).glob(FILES[what])
    flip_bit(damaged)
    said = rela(*PLACE, "cache", "verify", exit_code=65).stdout
    line, *others = re.findall(r"`(rela [^`]*)`", said)
    assert len(others) == (what == "targets")
    commands = [shlex.split(command)[1:] for command in line.split(" && ")]
    for make in commands[1:]:  # which says so itself, not that it exists
        assert f"`{line}`" in rela(*make, exit_code=65).stderr
    for command in commands:
        rela(*command)
    rela(*PLACE, "cache", "verify")
    gone = {damaged.parent.name} if what == "targets" else set()  # the next training makes them
    assert results().keys() == before.keys() - gone
    assert results().items() <= before.items()


@pytest.mark.parametrize(
    ("folder", "verb"),
    [
        ("datasets", "convert"),
        ("representations", "embed"),
        ("targets", "train"),
        ("runs", "train"),
    ],
)
def test_without_a_readable_manifest_it_can_be_removed(
    rela: Rela, here: Path, folder: str, verb: str
):
    manifest = next(Path(PLACE[1], folder).glob(f"[!.]*/{MANIFEST_NAME}"))
    manifest.write_text("{")
    said = rela(*PLACE, "cache", "verify", exit_code=65).stdout
    remove, make = re.findall(r"`(rela [^`]*)`", said)
    assert make == f"rela --workspace 'else where' {verb} …"
    rela(*shlex.split(remove)[1:])
    assert not manifest.parent.exists()
    rela(*PLACE, "cache", "verify")


@pytest.mark.parametrize(
    "command",
    [
        ["rm", "-rf", "photos"],
        ["rela", "rm", "photos"],
        ["rela", "embed", "photos", "--prior", "file:x.pt", "--trust-code"],
        ["rela", "embed", "photos`reboot`"],
        ["rela", "embed", "photos\n"],
        "rela embed photos",
        [3, 4, 5],
        None,
    ],
)
def test_a_manifest_of_others_gets_no_command_of_theirs_printed(
    rela: Rela, here: Path, command: object
):
    place = Path(PLACE[1], "datasets/pictures")
    found = Manifest.read(place)
    found.provenance["command"] = command
    found.write(place)
    flip_bit(place / "train.beton")
    said = rela(*PLACE, "cache", "verify", exit_code=65).stdout
    assert "`rela --workspace 'else where' rm 'else where/datasets/pictures' --force`; `" in said


def test_a_path_outside_of_the_workspace_is_not_removed(rela: Rela, here: Path):
    said = rela("rm", "else where/datasets/pictures", exit_code=2).stderr
    assert "--workspace 'else where'" in said
    assert Path(PLACE[1], "datasets/pictures").is_dir()
    removed = read_json(rela(*PLACE, "rm", "else where/runs/first/", "--json"))["removed"]
    assert removed[0]["kind"] == "run"
