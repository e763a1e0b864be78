"""The prior of a run in `rela eval`: measured by the probes of the run, or the reason why not.

Covers: random priors, weights in a file, runs, combinations and random crops; one measurement for all runs of
a prior, and none for a second call, which does not import torch; missing weights and the command that helps.
"""

import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Rela, read_json, run_with
from finished_runs import finished_run

from rela.evaluation.knn import knn_accuracy
from rela.evaluation.protocols import PROTOCOLS
from rela.models.backbones import build_backbone
from rela.pipeline.owner import owner_token
from rela.representations.named import NamedRepresentations
from rela.stages.evaluate.probing import Probing
from rela.stages.priors.find import open_representations
from rela.stages.workspace.workspace import Workspace

ARCH, QUICK = "shufflenet_v2_x0_5", ("--protocol", "knn20")
PLACE = Path("workspace")


@pytest.fixture(autouse=True)
def here(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small tree is a data set, and a file beside it has weights."""
    monkeypatch.chdir(tmp_path)
    torch.save(build_backbone(ARCH, 32, seed=5).state_dict(), "best.pth")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts measurements by the data set's representations that they read."""
    counts: Counter[str] = Counter()
    measure = Probing.measure

    def counted(probing: Probing, protocol: Any, seed: int) -> dict[str, Any]:
        counts["run" if probing.model else "prior"] += 1
        return measure(probing, protocol, seed)

    monkeypatch.setattr(Probing, "measure", counted)
    return counts


def learned(rela: Rela, name: str, *prior: str) -> None:
    """A run that learned from this prior, embedded for train only."""
    rela("embed", *prior)
    known = Workspace(PLACE).representations()
    newest = max(known, key=lambda a: a.manifest.provenance["finished_unix_seconds"])
    finished_run(PLACE, "images", ARCH, name, prior=newest)


WEIGHTS = ("--prior", "file:best.pth", "--arch", ARCH, "--image-size", "24")
PRESET = ("--prior", ARCH, "--weights", "best.pth", "--image-size", "40")
RANDOM = ("--prior", f"random:{ARCH}", "--image-size", "32", "--seed", "3")


@pytest.mark.parametrize(
    ("prior", "name"),
    [
        (RANDOM, f"prior random:{ARCH}-seed3@32px"),
        (WEIGHTS, "prior best.pth"),
        (PRESET, f"prior {ARCH}@best.pth"),
        (("--prior", "run:first"), "prior first"),
        ((*RANDOM, "--crops", "2"), f"prior random:{ARCH}-seed3@32px"),
    ],
)
def test_the_prior_has_the_figures_of_eval_prior(rela: Rela, prior: tuple[str, ...], name: str):
    finished_run(PLACE, "images", ARCH, "first", image_size=24)
    learned(rela, "second", *prior)
    lines = rela("eval", "second", *QUICK).stdout.splitlines()
    [row] = [line for line in lines if re.match(rf"{name} +20-NN", line)]
    found = read_json(rela("eval", "second", *QUICK, "--json"))
    [evaluation] = found["evaluations"]
    alone = read_json(
        rela("eval", *(w for w in prior if w not in ("--crops", "2")), *QUICK, "--json")
    )
    expected = alone["evaluations"][0]["results"]["accuracies"]["knn20"]["top1"]
    assert evaluation["prior"]["results"]["accuracies"]["knn20"]["top1"] == expected
    assert f"{100 * expected:.2f}" in row.split()


def test_a_combination_is_scaled_by_its_training_images(rela: Rela):
    learned(rela, "second", *RANDOM[:4], "--prior", f"random:{ARCH}-seed1")
    host = owner_token().rsplit("-", 2)[0]
    left = Path(
        "workspace/evaluations", f".staging-combined@{host}-{2**30}-0a1b2c3d"
    )  # by a killed job
    left.mkdir(parents=True)
    [found] = read_json(rela("eval", *QUICK, "--json"))["evaluations"]
    assert {path.suffix for path in left.parent.iterdir()} == {".json"}
    features: dict[str, list[Any]] = {"train": [], "val": []}
    for seed in (0, 1):
        train, val = (opened(f"random:{ARCH}-seed{seed}", split) for split in features)
        rows = {s: one.array.astype(np.float64) for s, one in (("train", train), ("val", val))}
        mean, std = rows["train"].mean(axis=0), rows["train"].std(axis=0)
        kept = np.ptp(rows["train"], axis=0) > 0
        for split, values in rows.items():
            scaled = (values[:, kept] - mean[kept]) / std[kept] / np.sqrt(kept.sum())
            features[split].append(scaled.astype(np.float16))
    expected = knn_accuracy(
        np.concatenate(features["train"], axis=1), torch.from_numpy(train.labels),
        np.concatenate(features["val"], axis=1), torch.from_numpy(val.labels),
        3, PROTOCOLS["knn20"], torch.device("cpu"),
    )  # fmt: skip
    assert found["prior"]["results"]["accuracies"]["knn20"]["top1"] == pytest.approx(expected)


def opened(prior: str, split: str) -> NamedRepresentations:
    return open_representations(Workspace(PLACE), prior, split=split)


def test_a_prior_of_several_runs_is_measured_once_and_kept(rela: Rela, measured: Counter[str]):
    learned(rela, "a", *WEIGHTS)
    learned(rela, "b", *WEIGHTS)
    first = rela("eval", "--all", *QUICK).stdout
    assert measured == {"run": 2, "prior": 1}
    assert len(re.findall(r"^prior best.pth +20-NN", first, re.M)) == 1
    Path("best.pth").unlink()  # no longer needed
    blocked = "import sys; sys.modules['torch'] = None"
    [again] = run_with(blocked, ["eval", "--all", *QUICK])
    assert again == first
    rela("eval", "a", "--protocol", "finetune-1")  # not a probe of features
    assert measured["prior"] == 1


@pytest.mark.parametrize(
    ("prior", "name", "reason"),
    [
        (WEIGHTS, "best.pth", "no such weights file"),
        (PRESET, f"{ARCH}@best.pth", "its weights file .*best.pth is gone"),
    ],
)
def test_a_prior_that_is_gone_is_said_with_the_command_that_helps(
    rela: Rela, prior: tuple[str, ...], name: str, reason: str
):
    learned(rela, "a", *prior)
    weights = Path("best.pth").read_bytes()
    Path("best.pth").unlink()
    found = rela("eval", *QUICK).stdout
    [line] = [
        line for line in found.splitlines() if line.startswith(f"prior {name} is not shown: ")
    ]
    assert f"no representations of split val by {name}" in line and re.search(reason, line)
    assert read_json(rela("eval", *QUICK, "--json"))["evaluations"][0]["without_prior"] == line
    Path("best.pth").write_bytes(weights)
    [command] = re.findall(r"`(rela embed .*?)`", line)
    rela(*shlex.split(command)[1:])
    Path("best.pth").unlink()
    assert (
        "is not shown" not in (words := rela("eval", *QUICK).stdout) and f"prior {name} " in words
    )


def test_representations_that_are_gone_are_said(rela: Rela):
    learned(rela, "a", *RANDOM)
    for made in Workspace(PLACE).representations():
        made.path.rename(made.path.with_name(".gone"))
    said = rela("eval", *QUICK).stdout
    assert "is not shown: the representations that run a learned from are gone" in said
