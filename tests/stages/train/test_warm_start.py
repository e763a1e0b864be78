"""`rela train --init`: the student begins with the given weights, bit by bit, also if it was killed before.

Covers: files, priors and runs; keys; position embeddings; weights of another architecture; damaged ones.
"""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import TINY, Rela, printed_commands, read_json
from damages import flip_bit
from finished_runs import finished_run
from safetensors.torch import load_file
from torch import Tensor

from rela.models.backbones import build_backbone
from rela.priors import PriorRequest, resolve
from rela.priors.earlier_run import BACKBONE_FILE
from rela.stages.workspace.run import begun_from, read_config
from rela.training.run_directory import INITIAL_FILE

MODEL = "timm:test_resnet"
Begun = Callable[..., dict[str, Tensor]]


@pytest.fixture
def begun(rela: Rela, small_tree: Path, monkeypatch: pytest.MonkeyPatch) -> Begun:
    """begun("--init", "a.pth") → the student's weights before the first step, where it is interrupted."""
    rela("convert", small_tree, "--name", "images")
    found: dict[str, Tensor] = {}

    def stop(trainer: Any, module: Any, *others: Any) -> None:
        found.update({k: v.clone() for k, v in module.method.backbone.state_dict().items()})
        raise KeyboardInterrupt

    def call(*words: object) -> dict[str, Tensor]:
        found.clear()
        with monkeypatch.context() as patch:
            patch.setattr("rela.training.run._fit", stop)
            rela("train", *words, exit_code=130)
        return dict(found)

    return call


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def test_the_student_begins_with_the_weights_and_resumes_without_the_file(begun: Begun, rela: Rela):
    state = build_backbone(MODEL, 32, seed=5).state_dict()
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in state.items()}}, "own.pth")
    plain = ["--prior", "none", "--epochs", 1, *TINY]
    assert equal(begun(*plain, "--name", "warm", "--init", "own.pth"), state)
    assert not equal(begun(*plain, "--name", "cold"), state)
    warm, cold = (read_config(Path("workspace/runs") / name) for name in ("warm", "cold"))
    assert warm.fingerprint != cold.fingerprint
    Path("own.pth").rename("moved.pth")
    assert equal(begun("--resume", "--name", "warm"), state)
    assert "no such weights" in rela("train", *plain, "--init", "own.pth", exit_code=74).stderr
    said = rela("train", *plain, "--init", "moved.pth").stderr  # the same bytes: the same run
    assert "resuming the interrupted run warm" in said
    assert "timm:test_resnet, views of 32×32 pixels, by byol, from the weights of file:/" in said
    kept = Path("workspace/runs/warm", INITIAL_FILE)
    assert not kept.exists()
    kept.touch()  # as a training leaves it that is killed between its manifest and its end
    rela("train", *plain, "--init", "moved.pth")
    assert not kept.exists()
    row = read_json(rela("status", "--json"))["runs"][0]
    assert (row["name"], row["init"]) == ("warm", f"file:{Path('own.pth').absolute()}")
    said = rela("train", *plain, "--init", "own.pth#0123456789abcdef", exit_code=74).stderr
    said = rela("train", *plain, "--init", "moved.pth#0123456789abcdef", exit_code=2).stderr
    assert "has other weights by now" in said


def test_a_prior_or_a_run_may_be_the_start_and_names_the_model(begun: Begun):
    size = ["--prior", "none", "--image-size", 32, "--batch-size", 8, "--epochs", 1]
    prior = f"random:{MODEL}"
    state = resolve(PriorRequest(prior, image_size=32)).load().state_dict()
    assert equal(begun(*size, "--init", prior, "--name", "first"), state)
    settings = read_config(Path("workspace/runs/first")).settings
    assert (settings.model, begun_from(settings)) == (MODEL, prior)
    run = finished_run(Path("workspace"), "images", MODEL, "trained")
    state = load_file(run.path / BACKBONE_FILE)
    assert equal(begun(*size, "--init", "trained", "--name", "second"), state)


def test_other_architectures_are_refused_with_the_one_that_fits(begun: Begun, rela: Rela):
    other = "random:shufflenet_v2_x0_5"
    state = resolve(PriorRequest(other, image_size=32)).load().state_dict()
    words = ["train", "--prior", "none", "--epochs", 1, *TINY, "--init"]
    said = rela(*words, other, exit_code=65).stderr
    (command,) = printed_commands(said)
    assert f"--init {other} does not fit --model timm:test_resnet; it fits shuffle" in said
    assert equal(begun(*shlex.split(command)[2:], "--name", "other"), state)
    said = rela(*words, f"random:{MODEL}@layer1", exit_code=2).stderr
    assert "expected one whole network" in said
    assert "expected a prior, a run or a file" in rela(*words, "none", exit_code=2).stderr
    kept = Path("workspace/runs/other", INITIAL_FILE)
    kept.write_bytes(kept.read_bytes()[:-4] + bytes(4))
    assert "is damaged; remove" in rela("train", "--resume", exit_code=65).stderr
    kept.unlink()
    assert "is missing; remove" in rela("train", "--resume", exit_code=65).stderr


def test_weights_of_a_run_that_were_changed_are_no_start(rela: Rela, images: Path, tmp_path: Path):
    run = finished_run(tmp_path / "workspace", "images", MODEL, "first").path
    flip_bit(run / BACKBONE_FILE, -1)
    message = rela("train", "--prior", "none", *TINY, "--init", "first", exit_code=65).stderr
    assert f"first/{BACKBONE_FILE} was changed after the run finished" in message
