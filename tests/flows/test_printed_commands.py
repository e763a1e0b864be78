"""Every command that a message prints is run, in the state in which it was printed.

A case is a command line in a workspace with a data set, cached features, a finished and an unfinished run.
Each command that it prints is pasted into a copy of what it left, and must succeed. That commands are written
as they can be read is checked wherever tests call the command line (helpers/command_line.py).
"""

import itertools
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from command_line import TINY, printed_commands, run_rela
from pictures import SMALL_TREE, save_tree
from PIL import Image

from rela.data.loader import ViewLoader

RANDOM = "random:timm:test_resnet"
NO_NETWORK = 74  # published weights cannot be had in a test
CASES = {
    # what is typed, its exit status, words that its commands must contain
    "convert images --replace": (0, ["rela train images"]),
    "convert photos": (0, ["rela embed photos --prior resnet18"]),
    "convert changed --name images": (2, ["--replace"]),
    "convert bad": (65, ["--on-bad-image skip"]),
    "convert photos/train/ant/00.png": (65, ["rela convert"]),
    "convert ambiguous": (2, ["--layout classes", "--layout splits"]),
    f"embed images --prior {RANDOM} --image-size 16": (0, ["rela train images --prior"]),
    "train other --prior none --epochs 1": (2, []),
    f"train images --prior {RANDOM}-seed1": (2, ["rela embed images"]),
    f"train images --prior none --epochs 1 {shlex.join(TINY)}": (0, ["--epochs 2"]),
    f"train images --prior none --epochs 3 --name done {shlex.join(TINY)}": (
        2,
        ["--epochs 3 --batch-size 8 --name done-2", "rela train --resume --name done --epochs 3"],
    ),
    f"train images --prior none --epochs 9 --seed 5 --name half {shlex.join(TINY)}": (
        2,
        ["--name half-2", "rela train --resume --name half"],
    ),
    "train --resume --name done": (0, ["rela train --resume --name done --epochs 2"]),
    "rm images": (2, ["--dependents", "--force"]),
    "eval missing": (2, []),
    "neighbors photos/train/ant/00.png --prior run:half": (2, ["--resume --name half"]),
    "export done --to hdf5-features --dataset missing": (2, []),
    "status": (0, ["rela train --resume --name half"]),
}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set `images` with features, run `done`, and run `half`, which failed in its second epoch."""
    root = tmp_path_factory.mktemp("state")
    original, calls = ViewLoader._result, itertools.count(1)

    def result(self: ViewLoader, *arguments: object) -> object:
        if next(calls) == 5:
            raise RuntimeError("a disk died")
        return original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        for name in ("images", "photos", "changed", "bad"):
            save_tree(root / name, SMALL_TREE)
        folders = ("train/cat", "train/dog", "other/cat", "other/dog")
        save_tree(root / "ambiguous", {f"{f}/{i}.png": (16, 16) for f in folders for i in "12"})
        Image.new("RGB", (16, 16)).save("photos/train/ant/black.png")
        Image.new("RGB", (16, 16)).save("changed/train/ant/white.png")
        (root / "bad/train/ant/bad.png").write_bytes(b"no image")
        run_rela("convert", "images")
        run_rela("embed", "images", "--prior", RANDOM, "--image-size", 16)
        alone = ("train", "images", "--prior", "none", *TINY)
        run_rela(*alone, "--epochs", 1, "--name", "done")
        patch.setattr(ViewLoader, "_result", result)
        with pytest.raises(RuntimeError, match="a disk died"):
            run_rela(*alone, "--epochs", 2, "--name", "half")
    return root


@pytest.mark.parametrize("line", CASES)
def test_printed_commands_work(
    line: str, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("RELA_WORKSPACE", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status, wanted = CASES[line]
    here = tmp_path / "here"
    shutil.copytree(state, here)
    monkeypatch.chdir(here)
    said = run_rela(*shlex.split(line), exit_code=status).output
    found = printed_commands(said)
    found += [
        c for c in re.findall(r"(rela train --resume --name \S+)$", said, re.M) if "`" not in c
    ]
    for words in wanted:
        assert any(words in command for command in found), said
    for number, command in enumerate(found):
        if "rela report" in command or "--watch" in command:
            continue  # tested by themselves
        there = tmp_path / f"{number}"
        shutil.copytree(here, there)
        monkeypatch.chdir(there)
        words = shlex.split(command)[1:]
        if words[0] == "train" and "--resume" not in words:
            words += [*TINY, "--epochs", "1"]  # there are too few images for the default batch
        run_rela(*words, exit_code=NO_NETWORK if "resnet18" in words else 0)


REPLACED = ["convert", "changed", "--name", "images", "--replace"]


@pytest.mark.parametrize("before", [REPLACED, ["rm", "images", "--force"]])
@pytest.mark.parametrize(
    "line", ["eval done", "export done --to npy", "train --resume --name half"]
)
def test_a_run_whose_data_set_has_changed_or_is_gone_is_answered_with_a_command_that_works(
    line: str, before: list[str], state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("RELA_WORKSPACE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    shutil.copytree(state, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    run_rela("convert", "photos", "--name", "photos", "--on-bad-image", "skip")
    run_rela(*before)
    if line.startswith("train") and before != REPLACED:
        return  # it needs the very images
    said = run_rela(*shlex.split(line), exit_code=2).stderr
    assert ("has changed since" if before == REPLACED else "is gone") in said
    [command] = printed_commands(said)
    run_rela(*shlex.split(command)[1:])
