"""The whole job through the command line, on a tiny tree of real image files.

Covers: convert → embed → train → eval → status with the documented options; a cached second pass;
baselines (no prior, random prior, an earlier run as prior); unlabelled folders.
Interrupted jobs are in test_interruptions.
"""

import importlib
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from command_line import TINY, Rela, read_json
from pictures import MakeTree
from torchvision.models import get_model

from rela.training.run_directory import read_records


def test_the_whole_flow_runs_once_and_is_cached(
    rela: Rela, small_tree: Path, monkeypatch: pytest.MonkeyPatch
):
    calls: Counter[str] = Counter()

    def count(module: str, name: str) -> None:
        original = getattr(importlib.import_module(module), name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(sys.modules[module], name, counted)

    count("rela.stages.convert", "write_beton")
    count("rela.representations.embedder", "Embedder")
    count("rela.stages.train.targets", "fit_projection")
    count("rela.training.run", "run_training")
    count("rela.evaluation.logistic", "logistic_probe")

    commands = (
        ("convert", small_tree),
        ("embed", "--prior", "random:shufflenet_v2_x0_5", "--image-size", 32),
        ("train", "--epochs", 2, *TINY, "--model", "shufflenet_v2_x0_5"),
        ("eval",),
    )
    for command in commands:
        rela(*command)
    first = dict(calls)
    # one beton per split; train split for targets, then both splits for the evaluation of the run, and
    # the other split for that of its prior; the speed of their architecture
    assert first == {
        "write_beton": 2, "Embedder": 5, "fit_projection": 1, "run_training": 1, "logistic_probe": 2
    }  # fmt: skip
    again = [rela(*command, "--json") for command in commands]
    assert dict(calls) == first
    assert all(read_json(result)["cached"] for result in again)

    [evaluation] = read_json(again[-1])["evaluations"]
    accuracies = evaluation["results"]["accuracies"]
    assert set(accuracies) == {"knn20", "linear"}
    assert all(0 <= found["top1"] <= 1 for found in accuracies.values())
    status = read_json(rela("status", "--json"))
    assert [row["name"] for row in status["datasets"]] == ["images"]
    assert [row["name"] for row in status["runs"]] == ["images-byol-1"]
    assert status["resumable"] == []
    assert "images-byol-1" in rela("status").stdout


def test_the_ledger_of_a_run_counts_every_phase(rela: Rela, images: Path, tmp_path: Path):
    rela("train", "--prior", "random", "--handover", 0.5, "--epochs", 2, *TINY)
    cost = read_json(tmp_path / "workspace/runs/images-byol-1/cost.json")
    phases = {
        "convert", "embed", "targets", "startup", "stage1", "stage2", "data_wait", "checkpoint",
        "other",
    }  # fmt: skip
    assert set(cost["seconds"]) == phases
    assert cost["total_seconds"] == pytest.approx(sum(cost["seconds"].values()), abs=1e-3)
    assert all(seconds >= 0 for seconds in cost["seconds"].values())
    found = sorted((tmp_path / "workspace").glob("*/*/manifest.json"))
    cpu_seconds = [read_json(path)["provenance"]["cpu_seconds"] for path in found]
    # the clock of a process ticks every 10 ms: the smallest phase may take none
    assert len(cpu_seconds) == 4 and min(cpu_seconds) >= 0 and sorted(cpu_seconds)[2] > 0
    assert cost["cpu_seconds"] == pytest.approx(sum(cpu_seconds), abs=1e-3)


def test_a_run_is_a_prior_for_the_next_data_set(
    rela: Rela, images: Path, make_tree: MakeTree, tmp_path: Path
):
    rela("convert", make_tree({f"{c}/{i}.png": (20, 20) for c in "xy" for i in range(8)}, "other"))
    rela("train", "images", "--prior", "none", "--epochs", 1, *TINY, "--name", "teacher")
    rela("embed", "other", "--prior", "teacher")
    [path] = (tmp_path / "workspace/representations").glob("other-train-teacher-*/*.h5")
    with h5py.File(path) as file:
        assert file["representations"].shape == (14, 96)  # and 2 held out
        assert file.attrs["prior"] == "teacher"
    rela("train", "other", "--epochs", 1, *TINY, "--name", "student")
    manifest = read_json(tmp_path / "workspace/runs/student/manifest.json")
    assert manifest["content"]["prior"] == "teacher"


def test_a_flat_folder_trains_without_labels(rela: Rela, make_tree: MakeTree, tmp_path: Path):
    rela("convert", make_tree({f"{i}.png": (16, 16) for i in range(16)}, "flat"))
    rela("train", "--prior", "random", "--epochs", 1, *TINY)
    run = tmp_path / "workspace/runs/flat-byol-1"
    assert "online_accuracy" not in read_records(run / "metrics.jsonl")[-1]
    assert "no labels" in rela("eval", exit_code=2).stderr


def test_features_of_a_replaced_run_are_not_used(
    rela: Rela, images: Path, make_tree: MakeTree, tmp_path: Path
):
    rela("convert", make_tree({f"{i}.png": (20, 20) for i in range(8)}, "other"))
    teacher = ("train", "images", "--prior", "none", "--epochs", 1, *TINY, "--name", "teacher")
    rela(*teacher)
    rela("embed", "other", "--prior", "teacher")
    shutil.rmtree(tmp_path / "workspace/runs/teacher")
    rela(*teacher, "--seed", 1)
    student = ("train", "other", "--prior", "teacher", "--epochs", 1, *TINY)
    assert "has not been embedded" in rela(*student, exit_code=2).stderr
    rela(*student, "--embed")
    assert len(list((tmp_path / "workspace/representations").glob("other-train-teacher-*"))) == 2


def test_stage_1_settings_do_not_change_a_baseline(rela: Rela, images: Path):
    baseline = ("train", "--prior", "none", "--epochs", 1, *TINY)
    rela(*baseline)
    again = rela(*baseline, "--head", "learned", "--handover", 0.5, "--json")
    assert read_json(again)["cached"]


def test_stage_1_alone_never_hands_over(rela: Rela, images: Path, tmp_path: Path):
    said = rela("train", "--prior", "random", "--handover", 1, "--epochs", 2, *TINY).stderr
    assert "hand-over to" not in said
    run = tmp_path / "workspace/runs/images-byol-1"
    assert {record["stage"] for record in read_records(run / "metrics.jsonl")} == {1}


def test_accumulation_keeps_the_number_of_steps(rela: Rela, images: Path, tmp_path: Path):
    for accumulate in (1, 4):
        options = ("--batch-size", 16, "--accumulate", accumulate, "--name", f"by{accumulate}")
        rela("train", "--prior", "none", "--epochs", 2, *TINY, *options)
        manifest = read_json(tmp_path / f"workspace/runs/by{accumulate}/manifest.json")
        assert manifest["content"]["num_steps"] == 2  # 24 images: one batch of 16 an epoch


def test_a_repaired_image_makes_another_data_set(rela: Rela, small_tree: Path):
    path = next(small_tree.rglob("*.png"))
    content = path.read_bytes()
    path.write_bytes(content[:40])
    for cached in (False, True):
        made = rela("convert", small_tree, "--on-bad-image", "skip", "--json")
        assert read_json(made)["cached"] == cached
    path.write_bytes(content)
    assert "other images" in rela("convert", small_tree, exit_code=2).stderr


def test_unused_settings_hit_the_cache(rela: Rela, images: Path):
    again = rela("convert", images, "--seed", 3, "--on-bad-image", "skip", "--json")
    assert read_json(again)["cached"]


def test_replaced_weights_are_noticed_at_equal_times(rela: Rela, images: Path, tmp_path: Path):
    path = tmp_path / "weights.pt"
    embed = ("embed", "--prior", "shufflenet_v2_x0_5", "--weights", path)
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(get_model("shufflenet_v2_x0_5", weights=None).state_dict(), path)
        os.utime(path, (1_000_000, 1_000_000))
        assert not read_json(rela(*embed, "--json"))["cached"]
