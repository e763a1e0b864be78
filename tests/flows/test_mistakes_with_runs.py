"""Mistakes in a workspace with runs, at the command line and in Python; nothing changes it.

Data sets `images` (with val) and `plain` (without), features of `images` by a random prior, runs `done` and
`half`, which was interrupted.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run_rela
from finished_runs import finished_run
from pictures import SMALL_TREE, save_tree
from refusals import assert_refused, listing

import rela
from rela.errors import RelaError
from rela.options import keyword_function
from rela.stages.requests import Train
from rela.stages.train.resolve import resolve_hyperparameters
from rela.stages.workspace.run import Config, DataSetReference
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

NETWORK, RANDOM = "shufflenet_v2_x0_5", "random:shufflenet_v2_x0_5"
IMAGE = "images/train/ant/00.png"
MISTAKES = [
    ("train done --prior none", 2, ["no data set 'done'", "done is a run"]),
    ("train half", 2, ["half is a run"]),
    ("status done", 2, ["done is a run"]),
    ("priors rank done", 2, ["done is a run"]),
    ("embed images --prior half", 2, ["run 'half'", "`rela train --resume --name half`"]),
    ("embed images --prior done --weights x.pt", 2, ["--weights does not apply to the run done"]),
    ("embed images --prior done --image-size 64", 2, ["takes images of 32×32 pixels; remove --image-size"]),
    ("embed images --prior donee", 2, ["no model and no run 'donee'; did you mean done?"]),
    ("train images --prior none --init donee", 2, ["no model and no run 'donee'; did you mean done?"]),
    ("train images --prior done --name done", 2, ["`rela embed images --prior done`"]),
    ("eval workspace/runs/done", 2, ["a name is expected, not a path", "did you mean done?"]),
    ("eval done/", 2, ["did you mean done?"]),
    ("eval Done", 2, ["did you mean done?"]),
    ("eval done@7", 2, ["no finished run 'done@7'", "did you mean done?"]),
    ("eval done --dataset done", 2, ["no data set 'done'", "done is a run"]),
    ("eval done --dataset plain", 2, ["plain has no val split"]),
    ("eval done --image-size 64", 2, ["--image-size without --prior"]),
    ("report done --output notes.txt/page", 2, ["notes.txt is a file; choose another folder"]),
    ("report done --output page.html", 2, ["expected a folder", "use --output page"]),
    ("report images", 2, ["images is a data set"]),
    ("export done --output notes.txt/x.safetensors", 2, ["notes.txt is a file; choose another folder"]),
    ("export images", 2, ["images is a data set"]),
    ("export done --to timm --output x.onnx", 2, ["ending in .safetensors or .pth"]),
    (f"neighbors {IMAGE}", 2, ["name one of images, plain with --dataset"]),
    (f"neighbors {IMAGE} --dataset images --prior none", 2, ["random:ARCH"]),
    (f"neighbors {IMAGE} images", 2, ["unexpected images: neighbors takes [IMAGE]"]),
    ("rm runs:done", 2, ["did you mean done?"]),
    ("cache verify images/", 2, ["did you mean images?"]),
    ("train --resume --name done --epochs 1", 2, ["run done has 1 epochs already; give more"]),
    ("train images --prior none --name half --epochs 3 --batch-size 8", 2, ["choose another --name"]),
]  # fmt: skip

Call = Callable[[], object]
CALLS: list[tuple[Call, str]] = [
    (lambda: rela.train(rela.describe("images"), prior="none"), r"dataset = <Described.*expected a name"),
    (lambda: rela.train(Path("images"), prior="none"), "dataset = .*expected a name"),
    (lambda: rela.embed(rela.convert("images"), prior=RANDOM), "expected a name, such as 'images'"),
    (lambda: rela.convert(None), r"source = None \(NoneType\): expected a path"),
    (lambda: rela.convert("images", workspace=3), "workspace = 3: expected the path of a folder"),
    (lambda: rela.embed("images", prior=[]), r"prior = \[\] \(list\): expected a string"),
    (lambda: rela.embed("images", prior=None), r"prior = None \(NoneType\): expected a string"),
    (lambda: rela.embed("images", prior=RANDOM, device=torch.device("cpu")), r"\(device\): expected a str"),
    (lambda: rela.embed("images", prior=RANDOM, batch_size=8.0), r"batch_size = 8.0 \(float\): expected"),
    (lambda: rela.embed("images", prior=RANDOM, image_size="32"), r"image_size = '32' \(str\): expected an"),
    (lambda: rela.embed("images", prior=RANDOM, dtype=np.float16), "expected one of float16, float32"),
    (lambda: rela.train("images", prior="none", seed=None), r"seed = None \(NoneType\): expected an integer"),
    (lambda: rela.train("images", prior="none", epochs=None), "epochs = None"),
    (lambda: rela.train("images", prior="none", logger=None), "logger = None"),
    (lambda: rela.train("images", prior="none", devices=1), r"devices = 1 \(int\): expected a string"),
    (lambda: rela.train("images", prior="none", model=torch.nn.Linear(2, 2)), "model cannot take images"),
    (lambda: rela.train("images", prior="none", model=""), "model is empty"),
    (lambda: rela.resume("half", devices=1), r"resume\(\): devices = 1 \(int\): expected str or None"),
    (lambda: rela.resume("done", epochs="5"), r"epochs = '5' \(str\): expected int or None"),
    (lambda: rela.resume(Path("half")), "name = .*expected str or None"),
    (lambda: rela.evaluate(3), r"runs = 3 \(int\): expected a name"),
    (lambda: rela.evaluate(None), "runs = None"),
    (lambda: rela.evaluate("done", protocol=None), "protocol = None"),
    (lambda: rela.evaluate("done", seeds=None), "seeds = None"),
    (lambda: rela.neighbors(torch.zeros(3, 8, 8), dataset="images"), r"image = .*\(Tensor\)"),
    (lambda: rela.report(output=None), "output = None"),
    (lambda: rela.describe(Path("images")), r"describe\(\): dataset = "),
    (lambda: rela.run_recipe({"train": []}), r"run_recipe\(\): recipe = .*expected str or Path"),
    (lambda: rela.remove(3), r"things = 3 \(int\): expected a name"),
    (lambda: rela.verify_cache(["images"]), r"names = \['images'\] \(list\): expected str"),
    (lambda: rela.clean_cache("30"), r"unused_days = '30' \(str\): expected float"),
    (lambda: rela.clean_cache(-1), "unused_days = -1: expected a number of at least 0"),
    (lambda: rela.demo(seeds=0), "seeds = 0: expected an integer of at least 1"),
    (lambda: rela.open_representations("none", dataset="images"), "random:ARCH"),
    (lambda: rela.open_representations(dataset="images", split="test"), "expected one of train, val"),
    (lambda: rela.load_backbone("images"), "images is a data set"),
    (lambda: rela.train("images"), "without one: prior none"),
    (lambda: rela.train("images", prior=RANDOM), "or add embed=True"),
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    save_tree(root / "images", SMALL_TREE)
    save_tree(root / "plain", {f"{'ab'[i % 2]}/{i}.png": (16, 16) for i in range(8)})
    workspace = ("--workspace", root / "workspace")
    run_rela(*workspace, "convert", root / "images")
    run_rela(*workspace, "convert", root / "plain", "--val-fraction", 0)
    finished_run(root / "workspace", "images", NETWORK, "done")
    images = Workspace(root / "workspace").dataset("images")
    settings = TrainSettings(model=NETWORK, image_size=32, prior="none", anchor=0.0)
    settings = resolve_hyperparameters(settings, labelled=True)
    reference = DataSetReference("images", images.fingerprint)
    (root / "workspace/runs/half").mkdir()
    Config("0" * 64, reference, settings, None).write(root / "workspace/runs/half")
    (root / "notes.txt").write_text("buy milk")
    return root


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("RELA_WORKSPACE", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(place / "torch"))


@pytest.mark.parametrize(("line", "status", "words"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_mistakes_name_the_next_step(place: Path, line: str, status: int, words: list[str]):
    assert_refused(place, line, status, words)


@pytest.mark.parametrize(("call", "words"), CALLS, ids=[words for _, words in CALLS])
def test_a_wrong_value_in_python_is_named_with_its_type(place: Path, call: Call, words: str):
    before = listing(place)
    with pytest.raises(RelaError, match=words) as caught:
        call()
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert "--" not in re.sub("`[^`]*`", "", said)  # arguments, not flags
    assert listing(place) == before


@pytest.mark.parametrize("name", ["eval", "embedd"])
def test_a_function_that_does_not_exist_names_the_one_meant(name: str):
    meant: dict[str, Any] = {"eval": "evaluate", "embedd": "embed"}
    with pytest.raises(AttributeError, match=f"did you mean {meant[name]}"):
        getattr(rela, name)


def test_numbers_of_numpy_are_numbers():
    @keyword_function(Train)
    def given(request: Train) -> list[object]:
        return [request.epochs, request.lr, type(request.epochs), type(request.lr)]

    assert given(epochs=np.int64(3), lr=np.float32(0.5)) == [3, 0.5, int, float]
