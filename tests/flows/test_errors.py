"""What goes wrong at the command line: exit status, one clear line that names the remedy, nothing lost.

Covers: bad images (listed, or skipped), layouts, names, missing and ambiguous inputs, weights that do
not fit, no network, features that are not numbers, damaged artifacts, unusable settings.
"""

import errno
import json
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import get_model

from rela.cli import main

TINY = ["--model", "shufflenet_v2_x0_5", "--image-size", "32", "--batch-size", "8"]
PRIOR = ["--prior", "random:shufflenet_v2_x0_5", "--image-size", "32"]


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """failing(65, "convert", ...) → stderr of a command that must exit so, without a traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RELA_WORKSPACE", raising=False)

    def run(exit_code: int, *arguments: object) -> str:
        result = CliRunner().invoke(main, [str(a) for a in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == exit_code, result.output
        assert "Traceback" not in result.stderr
        return result.stderr

    return run


@pytest.fixture
def converted(failing: Callable[..., str], small_tree: Path) -> Path:
    """The small tree as a data set; returns the workspace."""
    failing(0, "convert", small_tree)
    return Path("workspace")


def break_three(tree: Path) -> dict[str, str]:
    """Spoil three files in three ways; returns what shall be said of each."""
    files = sorted(tree.rglob("*.png"))
    files[5].write_bytes(b"")
    files[50].write_bytes(files[50].read_bytes()[:60])
    files[150].write_text("not an image")
    return {
        str(files[5].relative_to(tree)): "empty file",
        str(files[50].relative_to(tree)): "damaged",
        str(files[150].relative_to(tree)): "not an image",
    }


@pytest.fixture
def two_hundred(make_tree: Callable[..., Path]) -> Path:
    return make_tree({f"{'ab'[i % 2]}/{i:03d}.png": (12, 12) for i in range(200)}, "many")


def test_three_broken_files_among_two_hundred_are_listed_and_nothing_is_written(
    failing: Callable[..., str], two_hundred: Path
) -> None:
    reasons = break_three(two_hundred)
    message = failing(65, "convert", two_hundred)
    assert "3 bad images" in message
    assert "--on-bad-image skip" in message
    for path, reason in reasons.items():
        [line] = [line for line in message.splitlines() if path in line]
        assert reason in line
    assert list(Path("workspace/datasets").iterdir()) == []


def test_three_broken_files_among_two_hundred_can_be_left_out(
    failing: Callable[..., str], two_hundred: Path
) -> None:
    reasons = break_three(two_hundred)
    failing(0, "convert", two_hundred, "--on-bad-image", "skip")
    content = json.loads(Path("workspace/datasets/many/manifest.json").read_text())["content"]
    assert content["splits"]["train"]["num_images"] == 197
    assert sorted(path for path, _ in content["bad_images"]) == sorted(reasons)
    rows = Path("workspace/datasets/many/train.csv").read_text().splitlines()
    assert len(rows) == 198
    assert not any(path in row for path in reasons for row in rows)


def test_a_class_that_only_val_has_is_named(
    failing: Callable[..., str], make_tree: Callable[..., Path]
) -> None:
    sizes = {"train/ant/1.png": (8, 8), "val/ant/1.png": (8, 8), "val/wolf/1.png": (8, 8)}
    assert "'wolf'" in failing(65, "convert", make_tree(sizes, "odd"))


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("convert", "nowhere"), 65, ["nowhere", "found nothing", "class folders"]),
        (("convert", "."), 65, ["no images", "CLASS/image.jpg"]),
        (("embed", "--prior", "resnet18"), 2, ["no data set", "rela convert"]),
        (("train",), 2, ["no data set", "rela convert"]),
        (("eval",), 2, ["no finished run", "rela train"]),
        (("train", "--resume"), 2, ["nothing to resume"]),
        (("embed",), 2, ["--prior"]),
        (("train", "--resume", "--epochs", "3"), 2, ["--epochs", "own configuration"]),
        (("eval", "--weights", "x.pt"), 2, ["--prior", "--weights"]),
        (("eval", "some", "--prior", "resnet18"), 2, ["not both"]),
        (("train", "--handover", "1.5"), 2, ["--handover", "0<=x<=1"]),
    ],
)
def test_an_empty_directory_says_what_to_do_first(
    failing: Callable[..., str], arguments: tuple[str, ...], exit_code: int, words: list[str]
) -> None:
    message = failing(exit_code, *arguments)
    for word in words:
        assert word in message


def test_a_name_is_not_given_to_other_images(
    failing: Callable[..., str], converted: Path, small_tree: Path
) -> None:
    next(small_tree.rglob("*.png")).unlink()
    message = failing(2, "convert", small_tree)
    assert "other images" in message
    assert "--name" in message


def test_several_data_sets_are_listed(
    failing: Callable[..., str], converted: Path, small_tree: Path
) -> None:
    failing(0, "convert", small_tree, "--name", "second")
    message = failing(2, "embed", *PRIOR)
    assert "images, second" in message
    assert "found images, second" in failing(2, "embed", "third", *PRIOR)


def test_training_without_representations_gives_the_command(
    failing: Callable[..., str], converted: Path
) -> None:
    assert "rela embed images --prior resnet18" in failing(2, "train", *TINY)
    message = failing(2, "train", "--prior", "random:shufflenet_v2_x0_5", *TINY)
    assert "rela embed images --prior random:shufflenet_v2_x0_5" in message
    assert "--embed" in message


def test_several_priors_are_listed(failing: Callable[..., str], converted: Path) -> None:
    failing(0, "embed", *PRIOR)
    failing(0, "embed", *PRIOR, "--seed", 1)
    message = failing(2, "train", *TINY)
    for seed in (0, 1):
        assert f"random:shufflenet_v2_x0_5-seed{seed}" in message


def test_an_unknown_prior_is_compared_with_what_there_is(
    failing: Callable[..., str], converted: Path
) -> None:
    assert "resnet18" in failing(2, "embed", "--prior", "resnt18")


def test_weights_that_do_not_fit_are_refused_by_key(
    failing: Callable[..., str], converted: Path, tmp_path: Path
) -> None:
    state = get_model("shufflenet_v2_x0_5", weights=None).state_dict()
    state["conv1.0.weight"] = torch.zeros(3, 3)
    del state["conv5.0.weight"]
    state["extra.weight"] = torch.zeros(1)
    save_file(state, tmp_path / "odd.safetensors")
    message = failing(
        65, "embed", "--prior", "shufflenet_v2_x0_5", "--weights", tmp_path / "odd.safetensors"
    )
    for words in ("missing: conv5.0.weight", "unexpected: extra.weight", "conv1.0.weight [3, 3]"):
        assert words in message
    assert not (converted / "representations").exists()


def test_without_a_network_the_file_to_fetch_is_named(
    failing: Callable[..., str],
    converted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    message = failing(74, "embed", "--prior", "resnet18")
    assert "resnet18-f37072fd.pth" in message
    assert str(tmp_path / "torch" / "hub" / "checkpoints") in message
    assert "--weights" in message


def test_features_that_are_not_numbers_name_their_images(
    failing: Callable[..., str], converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rela.representations.embedder import Embedder

    compute = Embedder.features

    def spoiled(self: Embedder, images: Tensor) -> Tensor:
        features = compute(self, images)
        features[5, 7] = np.nan
        return features

    with monkeypatch.context() as patched:
        patched.setattr(Embedder, "features", spoiled)
        message = failing(65, "embed", *PRIOR)
    assert "NaN or Inf for 1 images: train/ant/05.png" in message
    assert not list((converted / "representations").glob("*/*.h5"))


def test_changed_representations_are_not_trained_on(
    failing: Callable[..., str], converted: Path
) -> None:
    failing(0, "embed", *PRIOR)
    [path] = (converted / "representations").glob("*/representations.h5")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    message = failing(65, "train", "--epochs", 1, *TINY)
    assert f"{path} is damaged" in message and "run the stage that made it again" in message


def test_a_truncated_beton_is_refused_when_opened(
    failing: Callable[..., str], converted: Path
) -> None:
    path = converted / "datasets" / "images" / "train.beton"
    path.write_bytes(path.read_bytes()[:-100])
    message = failing(65, "train", "--prior", "none", "--epochs", 1, *TINY)
    assert "not a complete beton" in message
    assert "convert the images again" in message


def test_a_changed_manifest_is_refused(failing: Callable[..., str], converted: Path) -> None:
    path = converted / "datasets" / "images" / "manifest.json"
    path.write_text(path.read_text().replace('"ant"', '"ape"'))
    assert "changed after it was written" in failing(65, "status")


def test_targets_of_other_images_are_refused(
    failing: Callable[..., str],
    converted: Path,
    make_tree: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = make_tree({f"{c}/{i}.png": (16, 16) for c in "xy" for i in range(12)}, "other")
    failing(0, "convert", other)
    failing(0, "embed", "other", *PRIOR)
    from rela.stages.workspace.workspace import Workspace

    everything = Workspace.representations
    [foreign] = everything(
        Workspace(Path("workspace")),
        json.loads(Path("workspace/datasets/other/manifest.json").read_text())["content"]["splits"][
            "train"
        ]["images_sha256"],
    )
    with monkeypatch.context() as patched:  # as if the look-up had gone wrong
        patched.setattr(Workspace, "representations", lambda self, images: [foreign])
        message = failing(65, "train", "images", "--epochs", 1, *TINY)
    assert "belongs to other images" in message


def test_a_batch_larger_than_the_data_set_is_refused(
    failing: Callable[..., str], converted: Path
) -> None:
    message = failing(2, "train", "--prior", "none", "--epochs", 1, *TINY, "--batch-size", 64)
    assert "24 images" in message
    assert "--batch-size" in message


def test_evaluation_needs_a_validation_split(
    failing: Callable[..., str], make_tree: Callable[..., Path]
) -> None:
    failing(0, "convert", make_tree({f"{c}/{i}.png": (8, 8) for c in "ab" for i in range(4)}, "n"))
    assert "--val-fraction" in failing(2, "eval", *PRIOR)


def test_a_run_is_not_named_like_a_model(failing: Callable[..., str], converted: Path) -> None:
    message = failing(2, "train", "--prior", "none", *TINY, "--name", "resnet18")
    assert "hide the prior" in message
    assert "letters, digits" in failing(2, "train", "--prior", "none", *TINY, "--name", "../x")


def test_a_loss_that_is_not_a_number_ends_the_run(
    failing: Callable[..., str], converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = nn.Linear.forward

    def overflowing(self: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        return forward(self, x) * float("nan")

    with monkeypatch.context() as patched:
        patched.setattr(nn.Linear, "forward", overflowing)
        message = failing(65, "train", "--prior", "none", "--epochs", 1, *TINY)
    assert "loss became nan at step 1" in message
    assert "--lr" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "simclr", "--ema", "cosine"), "--method simclr does not use --ema"),
        (("--model", "resnet19"), "no model 'resnet19'"),
        (("--model", "inception_v3", "--image-size", 16), "cannot take images of 16×16"),
        (("--optimizer", "lars"), "--optimizer lars requires --lr"),
        (("--method", "none", "--handover", 0.5), "--method none is stage 1 only"),
    ],
)
def test_what_can_be_refused_is_refused_before_hours_of_embedding(
    failing: Callable[..., str], converted: Path, options: tuple[object, ...], message: str
) -> None:
    embed = ("train", "--prior", "random:shufflenet_v2_x0_5", "--embed")
    assert message in failing(2, *embed, *options)
    assert not (converted / "representations").exists()


def test_what_means_nothing_without_a_prior_is_said(
    failing: Callable[..., str], converted: Path
) -> None:
    tiny = ("--model", "shufflenet_v2_x0_5", "--image-size", 32, "--batch-size", 8, "--epochs", 1)
    options = ("--handover", 0.5, "--crops", 2, "--target-width", 3)
    said = failing(0, "train", "--prior", "none", *tiny, *options)
    assert "--handover, --target-width, --crops: ignored without a prior" in said
    assert "ignored" not in failing(0, "train", "--prior", "none", *tiny)


def test_an_algorithm_that_never_ran_is_said(failing: Callable[..., str], converted: Path) -> None:
    tiny = ("--model", "shufflenet_v2_x0_5", "--image-size", 32, "--batch-size", 8, "--epochs", 1)
    said = failing(0, "train", "--prior", "random", *tiny)
    assert "steps or more, and this run has 3: byol will never run; give more --epochs" in said
    for quiet in (("--handover", 0.4), ("--handover", 1), ("--method", "none")):
        assert "never run" not in failing(0, "train", "--prior", "random", *tiny, *quiet)
    result = CliRunner().invoke(main, ["status"])
    assert result.stdout.count("never") == 3  # the adaptive rule's, and the two of stage 1 alone


def test_what_means_nothing_to_a_run_as_a_prior_is_refused(
    failing: Callable[..., str], converted: Path
) -> None:
    tiny = ("--model", "shufflenet_v2_x0_5", "--image-size", 32, "--batch-size", 8, "--epochs", 1)
    failing(0, "train", "--prior", "none", *tiny, "--name", "teacher")
    for option in (("--seed", 5), ("--arch", "resnet18"), ("--trust-code",)):
        message = failing(2, "embed", "--prior", "teacher", *option)
        assert "do not apply to the run teacher" in message


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space or choose another --workspace"),
        (errno.EDQUOT, "free some space or choose another --workspace"),
        (errno.EROFS, "choose a writable --workspace"),
        (errno.EIO, "check that file system, then run the same command again"),
    ],
)
def test_what_a_disk_refuses_comes_with_a_remedy(
    failing: Callable[..., str], converted: Path, monkeypatch: pytest.MonkeyPatch,
    number: int, remedy: str,
) -> None:  # fmt: skip
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number), "some/place")

    monkeypatch.setattr(Path, "mkdir", refuse)
    message = failing(74, "convert", "images", "--name", "other")
    assert message.endswith(f"rela: cannot use some/place: {os.strerror(number)}; {remedy}\n")
