"""Evaluating and exporting a run that is not finished (rela.stages.train.snapshot).

- its last checkpoint becomes a run of its own, which `eval`, `export` and `status` name;
- the weights are those of the checkpoint; a later checkpoint is another snapshot, the same one is reused;
- `report` and `eval --all` leave snapshots out; a run without a checkpoint says so; one that is running
  is not called interrupted.
"""

import itertools
from pathlib import Path

import pytest
import torch
from command_line import TINY, Rela, read_json
from safetensors.torch import load_file

from rela import load_backbone
from rela.data.loader import ViewLoader
from rela.pipeline.locks import exclusive

RUNS = Path("workspace/runs")
TRAIN = ("train", "--prior", "none", *TINY, "--epochs", 3, "--name", "r")


@pytest.fixture
def interrupted(rela: Rela, images: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run r, which fails in its second epoch of three steps."""
    original, calls = ViewLoader._result, itertools.count(1)

    def result(self: ViewLoader, *arguments: object) -> object:
        if next(calls) == 5:
            raise RuntimeError("a disk died")
        return original(self, *arguments)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with monkeypatch.context() as patch:
        patch.setattr(ViewLoader, "_result", result)
        with pytest.raises(RuntimeError, match="a disk died"):
            rela(*TRAIN)
    return RUNS / "r"


def test_the_last_checkpoint_is_exported_and_evaluated(rela: Rela, interrupted: Path):
    said = rela("export", "r", "--to", "safetensors", "--output", "r.safetensors").output
    assert (
        "run r is not finished: using its last checkpoint, after step 3 and 1 of 3 epochs" in said
    )
    state = torch.load(interrupted / "checkpoints" / "step-00000003.ckpt", weights_only=True)
    prefix = "method.backbone."
    expected = {
        name.removeprefix(prefix): value
        for name, value in state["state_dict"].items()
        if name.startswith(prefix)
    }
    found = load_file("r.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)

    network, _ = load_backbone("r")
    for name, value in network.state_dict().items():
        assert torch.equal(value, expected[name]), name

    evaluated = read_json(rela("eval", "r", "--protocol", "knn20", "--json"))
    assert [each["run"] for each in evaluated["evaluations"]] == ["r@3"]
    row = read_json(rela("status", "--json"))["runs"][0]
    assert (row["name"], row["epochs"], row["epochs_done"]) == ("r@3", 3, 1)
    assert "1 of 3" in rela("status").stdout

    rela("train", "--resume")
    assert (RUNS / "r" / "manifest.json").is_file()
    found = read_json(rela("eval", "--all", "--protocol", "knn20", "--json"))
    assert [each["run"] for each in found["evaluations"]] == ["r"]
    assert "r@3" in rela("eval", "r@3", "--protocol", "knn20").stdout


def test_without_a_checkpoint_it_says_so(rela: Rela, interrupted: Path):
    for path in (interrupted / "checkpoints").iterdir():
        path.unlink()
    assert "run r has no checkpoint yet" in rela("eval", "r", exit_code=2).output


def test_a_running_run_is_not_called_interrupted(rela: Rela, interrupted: Path):
    with exclusive(interrupted / ".lock"):
        said = rela("train", "--resume", exit_code=2).output
        assert "0 interrupted runs" in said and "r running; `rela status --watch`" in said
        said = rela(
            "neighbors", next(Path("images").rglob("*.png")), "--prior", "run:r", exit_code=2
        )
        assert "resume" not in said.output and "still running" in said.output
