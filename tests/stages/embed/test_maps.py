"""Maps of features (rela embed --dense), and a training that learns from them.

- what is stored is the projection of what timm computes, in reading order;
- an interrupted embedding goes on to the same bytes; a damaged projection, a small disk and a map with
  too few positions give one line;
- maps are named by status, kept out of the way of vectors, and taken by a training only if asked for; an
  interrupted training goes on to the same weights, and not without its maps.
"""

import csv
import json
import re
import shlex
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from command_line import Rela, printed_commands, read_json
from pictures import MakeTree
from PIL import Image

from rela.data.views import NORMALIZE_MEAN, NORMALIZE_STD
from rela.pipeline.files import read_regular
from rela.pipeline.parts import PartStore
from rela.priors import PriorRequest, resolve
from rela.stages.evaluate.groups import varying
from rela.stages.report.reproduction import commands_for
from rela.stages.workspace.workspace import Workspace
from rela.training.maps import MapFormat
from rela.training.two_stage import TwoStage

PRIOR = "random:timm:test_resnet"
EMBED = ("embed", "--prior", PRIOR, "--image-size", 64)
DENSE = (*EMBED, "--dense", 2, "--dense-width", 8)
TRAIN = (
    "train", "--model", "timm:test_resnet", "--image-size", 32, "--epochs", 2, "--batch-size", 4,
    "--handover", 1, "--logger", "none",
)  # fmt: skip
NUM_IMAGES = 10


@pytest.fixture(autouse=True)
def parts_of_four_images(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("matrix_file", "targets"):
        monkeypatch.setattr(f"rela.representations.{module}.ROWS_PER_PART", 4)


@pytest.fixture
def tree(rela: Rela, make_tree: MakeTree) -> Path:
    tree = make_tree({f"train/{'ab'[i % 2]}/{i}.png": (64, 64) for i in range(NUM_IMAGES)})
    rela("convert", tree, "--val-fraction", 0)
    return tree


def maps_in(workspace: str = "workspace") -> Path:
    [path] = [
        p for p in Path(workspace).glob("representations/*x*/") if (p / "format.bin").is_file()
    ]
    return path


def test_a_map_is_the_projection_of_what_timm_computes(rela: Rela, tree: Path):
    rela(*DENSE, "--dense-dtype", "float16")
    format_ = MapFormat.from_bytes(read_regular(maps_in() / "format.bin"))
    with h5py.File(maps_in() / "representations.h5") as file:
        values, shape = file["representations"][:], json.loads(file.attrs["map_shape"])
    model: Any = resolve(PriorRequest(PRIOR, image_size=64)).load()
    with open("workspace/datasets/images/train.csv") as table:
        files = [tree / row["path"] for row in csv.DictReader(table)]
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]) / 255
    batch = torch.from_numpy((pixels - NORMALIZE_MEAN) / NORMALIZE_STD).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        found = model.forward_features(batch).permute(0, 2, 3, 1).numpy()
    assert shape == [2, 2, 8] and len(values) == len(files) == NUM_IMAGES
    exact = format_.projection.apply(found.reshape(-1, found.shape[-1])).reshape(NUM_IMAGES, -1)
    np.testing.assert_allclose(values, exact, atol=0.02)


def test_an_interrupted_embedding_goes_on_to_the_same_bytes(
    rela: Rela, tree: Path, monkeypatch: pytest.MonkeyPatch
):
    rela("--workspace", "whole", "convert", tree, "--val-fraction", 0)
    rela("--workspace", "whole", *DENSE)
    write, written = PartStore.write, []

    def write_a_part_of_each_then_die(*given: object) -> None:
        if len(written) == 2:  # of the vectors, then of the maps
            raise KeyboardInterrupt
        written.append(given)
        write(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(PartStore, "write", write_a_part_of_each_then_die)
        rela(*DENSE, exit_code=130)
    [fitted] = Path("workspace/representations").glob(".parts-*/format.bin")
    sound = fitted.read_bytes()
    fitted.write_bytes(sound[:-1] + b"?")
    said = rela(*DENSE, exit_code=65).output
    assert "format.bin is damaged; remove" in said
    remove = shlex.split(printed_commands(said)[0])[1:]
    assert "parts" in rela(*remove, "--dry-run").output
    fitted.write_bytes(sound)
    said = rela(*DENSE).output
    assert "resuming after 1 of 3 parts of the maps" in said
    assert "10 images × 2 × 2 positions × at most 8 components of int8: 320 B on disk" in said
    for name in ("representations.h5", "format.bin"):
        assert (maps_in() / name).read_bytes() == (maps_in("whole") / name).read_bytes()
    assert "10 × 2 × 2 × 8 maps of data set images (train) already exist" in rela(*DENSE).output


def test_the_printed_commands_of_several_layers_take_the_maps_of_each(rela: Rela, tree: Path):
    both = rela(*DENSE, "--layer", "layer2", "--layer", "layer3").output
    with_crops = rela(*EMBED, "--layer", "layer2", "--crops", 2).output
    commands = re.findall("^next: `rela (train .*)`$", both + with_crops, re.M)
    assert len(commands) == 3 and "--prior random:timm:test_resnet-seed0@layer3@64px" in commands[1]
    again = rela(*DENSE, "--layer", "layer2").output  # of which there are features of crops by now
    [command] = re.findall("^next: `rela (train .*)`$", again, re.M)
    rela(*shlex.split(command), *TRAIN[1:], "--epochs", 1, "--name", "run")
    maps = read_json(Path("workspace/runs/run/config.json"))["maps"]
    [made] = Path("workspace/representations").glob(f"*{maps[:12]}/manifest.json")
    assert read_json(made)["content"]["prior"]["layer"] == "layer2"
    assert "names maps" in rela("train", "--prior", made.parent.name, exit_code=2).output


def test_one_of_several_maps_is_chosen_by_its_name(rela: Rela, tree: Path):
    rela(*DENSE)
    both = rela(*DENSE[:-2], "--dense-width", 5, "--dense-dtype", "float16").output
    [suggested] = re.findall("^next: `rela (train .*)`$", both, re.M)
    names = [path.name for path in Path("workspace/representations").glob("*-2x2-*")]
    train = [*TRAIN, "--epochs", 1]
    said = rela(*train, "--dense", 1, exit_code=2).stderr
    assert "2 maps could be used for --dense; choose one with --maps: " in said
    assert all(name in said for name in names)
    [largest] = printed_commands(said)
    rela(*shlex.split(largest)[1:], "--name", "largest")
    rela(*shlex.split(suggested), *TRAIN[1:], "--epochs", 1, "--name", "suggested")
    made = [
        read_json(Path(f"workspace/runs/{name}/manifest.json")) for name in ("largest", "suggested")
    ]
    chosen = [each["parameters"]["maps"] for each in made]
    assert {key[:12] for key in chosen} == {name.rpartition("-")[2] for name in names}
    workspace = Workspace(Path("workspace"))
    for name, key in zip(("largest", "suggested"), chosen, strict=True):  # as a report prints them
        *_, embed, again = map(shlex.split, commands_for(workspace, workspace.run(name)))
        assert "already exist" in rela(*embed[1:]).output and "--dense" in embed
        assert key in again and "already finished" in rela(*again[1:]).output
    assert varying(vars(workspace.run(name).settings) for name in ("largest", "suggested")) == [
        "maps"
    ]
    assert "did you mean" in rela(*train, "--dense", 1, "--maps", names[0][:-1], exit_code=2).stderr
    [with_weight] = printed_commands(rela(*train, "--maps", names[0], exit_code=2).stderr)
    assert "--dense 1" in with_weight


def test_a_small_disk_and_a_small_map_are_refused_before_the_work(
    rela: Rela, tree: Path, monkeypatch: pytest.MonkeyPatch
):
    assert (
        "layer pooled has 2×2 positions; use --dense 2"
        in rela(*EMBED, "--dense", 7, exit_code=2).output
    )
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: usage(1000, 900, 100))
    assert (
        "has 100 B free, these maps need 640 B; free some space"
        in rela(*DENSE, exit_code=74).output
    )
    assert not list(Path("workspace").glob("representations/*"))
    assert (
        "--dense keeps the maps of one --prior"
        in rela(*DENSE, "--prior", "resnet18", exit_code=2).output
    )


def weights(run: str) -> bytes:
    return Path(f"workspace/runs/{run}/backbone.safetensors").read_bytes()


def test_a_training_takes_maps_if_it_is_asked_to(
    rela: Rela, tree: Path, monkeypatch: pytest.MonkeyPatch
):
    rela(*EMBED)
    said = rela(*TRAIN, "--dense", 1, exit_code=2).output
    assert (
        "no maps of prior random:timm:test_resnet-seed0@64px are embedded" in said
        and "--dense 7`" in said
    )
    assert "--dense 1`" in rela(*DENSE).output
    assert "(2×2×8 maps)" in rela("status").output
    rela(*TRAIN, "--name", "vectors")
    assert "maps with weight 0.5" in rela(*TRAIN, "--dense", 0.5, "--name", "whole").output
    assert weights("vectors") != weights("whole")

    step, seen = TwoStage.training_step, []

    def steps_then_die(self: TwoStage, *given: object) -> object:
        seen.append(given)
        if len(seen) == 4:  # in the second epoch
            raise KeyboardInterrupt
        return step(self, *given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(TwoStage, "training_step", steps_then_die)
        patch.setattr("rela.stages.train.train._finished", lambda *given: None)
        rela(*TRAIN, "--dense", 0.5, "--name", "parts", exit_code=130)
    hidden = maps_in().rename(Path("workspace/hidden"))
    assert (
        "the maps that run parts is trained on are missing"
        in rela("train", "--resume", exit_code=2).output
    )
    hidden.rename(Path("workspace/representations/again-x"))
    rela("train", "--resume")
    assert weights("parts") == weights("whole")
    assert read_json(Path("workspace/runs/parts/config.json"))["maps"]
    assert "not finished" not in rela("rm", "again-x", "--dry-run").output
