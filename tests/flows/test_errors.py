"""What goes wrong at the command line: exit status, one clear line that names the remedy, nothing lost.

Covers: bad images (listed, or skipped), missing and ambiguous inputs, weights that do not fit, no
network, features that are not numbers, damaged artifacts. Mistakes that break nothing: test_mistakes.
"""

import errno
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock
from urllib.error import URLError

import numpy as np
import pytest
import torch
from command_line import TINY, Rela, read_json
from damages import flip_bit
from pictures import MakeTree
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import get_model

from rela.errors import failure_of
from rela.representations.embedder import Embedder
from rela.stages.workspace.workspace import Workspace

PRIOR = ["--prior", "random:shufflenet_v2_x0_5", "--image-size", "32"]
WORKSPACE = Path("workspace")
Failing = Callable[..., str]


@pytest.fixture
def failing(rela: Rela) -> Failing:
    """failing(65, "convert", ...) → stderr of a command that must exit so, without a traceback."""

    def run(exit_code: int, *arguments: object) -> str:
        said = rela(*arguments, exit_code=exit_code).stderr
        assert "Traceback" not in said
        return said

    return run


def test_bad_images_are_listed_or_skipped(failing: Failing, make_tree: MakeTree):
    tree = make_tree({f"{'ab'[i % 2]}/{i:03d}.png": (12, 12) for i in range(200)}, "many")
    files = sorted(tree.rglob("*.png"))
    files[5].write_bytes(b"")
    files[50].write_bytes(files[50].read_bytes()[:60])
    files[150].write_text("not an image")
    bad = [str(files[i].relative_to(tree)) for i in (5, 50, 150)]
    message = failing(65, "convert", tree)
    assert "3 bad images" in message and "--on-bad-image skip" in message
    for path, reason in zip(bad, ("empty file", "damaged", "not an image"), strict=True):
        [line] = [line for line in message.splitlines() if path in line]
        assert reason in line
    assert list((WORKSPACE / "datasets").iterdir()) == []

    failing(0, "convert", tree, "--on-bad-image", "skip", "--val-fraction", 0)
    content = read_json(WORKSPACE / "datasets/many/manifest.json")["content"]
    assert content["splits"]["train"]["num_images"] == 197
    assert sorted(path for path, _ in content["bad_images"]) == bad
    left_out = (WORKSPACE / "datasets/many/left_out.csv").read_text().splitlines()
    assert [line.split('"')[1] for line in left_out] == ["path", *bad]
    rows = (WORKSPACE / "datasets/many/train.csv").read_text().splitlines()
    assert len(rows) == 198
    assert not any(path in row for path in bad for row in rows)


def test_many_bad_images_are_summed_up(failing: Failing, make_tree: MakeTree):
    tree = make_tree({f"a/{i:03d}.png": (8, 8) for i in range(60)}, "many")
    for number, path in enumerate(sorted(tree.rglob("*.png"))[:50]):
        path.write_bytes(b"" if number % 5 else path.read_bytes()[: 60 + number])
    (tree / "a/notes.txt").touch()
    said = failing(65, "convert", tree, "--val-fraction", 0).splitlines()
    assert len(said) < 20 and "  40 × empty file (0 bytes)" in said
    assert said[-1] == "  and 40 more" and any("  10 × damaged" in line for line in said)
    full = (WORKSPACE / "many-left_out.csv").read_text().splitlines()
    failing(0, "convert", tree, "--on-bad-image", "skip", "--val-fraction", 0)
    assert full == (WORKSPACE / "datasets/many/left_out.csv").read_text().splitlines()
    assert not (WORKSPACE / "many-left_out.csv").exists()
    assert len(full) == 52 and full[-1] == '"a/notes.txt","stray file"'


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("convert", "nowhere"), 65, ["nowhere", "found nothing", "class folders"]),
        (("convert", "."), 65, ["no images", "CLASS/image.jpg"]),
        (("embed", "--prior", "resnet18"), 2, ["no data set", "rela convert"]),
        (("train",), 2, ["no data set", "rela convert"]),
    ],
)
def test_errors_in_an_empty_directory_name_the_first_step(
    failing: Failing, arguments: tuple[str, ...], exit_code: int, words: list[str]
):
    message = failing(exit_code, *arguments)
    for word in words:
        assert word in message


def test_several_priors_are_listed(failing: Failing, images: Path):
    for seed in (0, 1):
        failing(0, "embed", *PRIOR, "--seed", seed)
    names = ", ".join(f"random:shufflenet_v2_x0_5-seed{seed}@32px" for seed in (0, 1))
    assert names in failing(2, "train", *TINY)


def test_weights_that_do_not_fit_are_refused_by_key(failing: Failing, images: Path, tmp_path: Path):
    state = get_model("shufflenet_v2_x0_5", weights=None).state_dict()
    state["conv1.0.weight"] = torch.zeros(3, 3)
    del state["conv5.0.weight"]
    state["extra.weight"] = torch.zeros(1)
    save_file(state, tmp_path / "odd.safetensors")
    weights = ("--weights", tmp_path / "odd.safetensors")
    message = failing(65, "embed", "--prior", "shufflenet_v2_x0_5", *weights)
    for words in ("missing: conv5.0.weight", "unexpected: extra.weight", "conv1.0.weight [3, 3]"):
        assert words in message
    assert not (WORKSPACE / "representations").exists()


def test_without_a_network_the_file_to_fetch_is_named(
    failing: Failing, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    no_network = Mock(side_effect=URLError("Name or service not known"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    message = failing(74, "embed", "--prior", "resnet18")
    for words in ("resnet18-f37072fd.pth", str(tmp_path / "torch/hub/checkpoints"), "--weights"):
        assert words in message


def test_features_that_are_not_numbers_name_their_images(
    failing: Failing, images: Path, monkeypatch: pytest.MonkeyPatch
):
    compute = Embedder.features

    def spoiled(self: Embedder, images: Tensor) -> Tensor:
        features = compute(self, images)
        features[5, 7] = np.nan
        return features

    monkeypatch.setattr(Embedder, "features", spoiled)
    message = failing(65, "embed", *PRIOR)
    assert "NaN or Inf for 1 images: train/ant/05.png" in message
    assert not list((WORKSPACE / "representations").glob("*/*.h5"))


def test_changed_representations_are_not_trained_on(failing: Failing, images: Path):
    failing(0, "embed", *PRIOR)
    [path] = (WORKSPACE / "representations").glob("*/representations.h5")
    flip_bit(path)
    message = failing(65, "train", "--epochs", 1, *TINY)
    assert f"{path} is damaged" in message and "make it again with `rela rm" in message


def test_a_truncated_beton_is_refused_when_opened(failing: Failing, images: Path):
    path = WORKSPACE / "datasets/images/train.beton"
    path.write_bytes(path.read_bytes()[:-100])
    message = failing(65, "train", "--prior", "none", "--epochs", 1, *TINY)
    assert "not a complete beton" in message and "make it again with `rela rm" in message


def test_a_changed_manifest_is_refused(failing: Failing, images: Path):
    path = WORKSPACE / "datasets" / "images" / "manifest.json"
    path.write_text(path.read_text().replace('"ant"', '"ape"'))
    assert "changed after it was written" in failing(65, "status")


def test_targets_of_other_images_are_refused(
    failing: Failing, images: Path, make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
):
    other = make_tree({f"{c}/{i}.png": (16, 16) for c in "xy" for i in range(12)}, "other")
    failing(0, "convert", other)
    failing(0, "embed", "other", *PRIOR)
    workspace = Workspace(WORKSPACE)
    foreign = workspace.representations(workspace.dataset("other").images_sha256())
    # as if the look-up had gone wrong
    monkeypatch.setattr(Workspace, "representations", lambda self, images: foreign)
    message = failing(65, "train", "images", "--epochs", 1, *TINY)
    assert "belongs to other images" in message


def test_a_loss_that_is_not_a_number_ends_the_run(
    failing: Failing, images: Path, monkeypatch: pytest.MonkeyPatch
):
    forward = nn.Linear.forward

    def overflowing(self: nn.Linear, x: Tensor) -> Tensor:
        return forward(self, x) * float("nan")

    monkeypatch.setattr(nn.Linear, "forward", overflowing)
    message = failing(65, "train", "--prior", "none", "--epochs", 1, *TINY)
    assert "loss became nan at step 1" in message and "--lr" in message


def test_options_ignored_without_a_prior_are_reported(failing: Failing, images: Path):
    tiny = (*TINY, "--epochs", 1)
    options = ("--handover", 0.5, "--crops", 2, "--target-width", 3)
    said = failing(0, "train", "--prior", "none", *tiny, *options)
    assert "--handover, --target-width, --crops: ignored without a prior" in said
    assert "ignored" not in failing(0, "train", "--prior", "none", *tiny)


def test_a_run_too_short_for_stage_2_is_reported(failing: Failing, rela: Rela, images: Path):
    tiny = (*TINY, "--epochs", 1, "--hyperparameters", "reference")
    said = failing(0, "train", "--prior", "random", *tiny)
    assert "steps or more, and this run has 3: byol will never run; give more --epochs" in said
    for quiet in (("--handover", 0.4), ("--handover", 1), ("--method", "none")):
        assert "never run" not in failing(0, "train", "--prior", "random", *tiny, *quiet)
    # the adaptive rule's, and the two of stage 1 alone
    assert rela("status").stdout.count("never") == 3


def test_options_that_do_not_apply_to_a_run_are_refused(failing: Failing, images: Path):
    tiny = (*TINY, "--epochs", 1)
    failing(0, "train", "--prior", "none", *tiny, "--name", "teacher")
    for option in (("--seed", 5), ("--arch", "resnet18"), ("--trust-code",)):
        message = failing(2, "embed", "--prior", "teacher", *option)
        assert "do not apply to the run teacher" in message
    assert "remove --image-size" in failing(2, "embed", "--prior", "teacher", "--image-size", 128)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space or choose another --workspace"),
        (errno.EDQUOT, "free some space or choose another --workspace"),
        (errno.EROFS, "choose a writable --workspace"),
        (errno.EIO, "check that file system, then run the same command again"),
    ],
)
def test_disk_errors_come_with_a_remedy(
    failing: Failing, images: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
):
    error = OSError(number, os.strerror(number), "some/place")
    monkeypatch.setattr(Path, "mkdir", Mock(side_effect=error))
    message = failing(74, "convert", "images", "--name", "other")
    what = os.strerror(number)
    under = "cannot write under workspace/datasets"
    assert message.endswith(f"rela: {under}: {what}; nothing was published; {remedy}\n")
    said = f"cannot use some/place: {what}; {remedy}"
    assert failure_of(error) == (said, 74)  # where nothing was to be published
