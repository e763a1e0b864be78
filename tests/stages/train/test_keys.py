"""What makes another artifact: every ingredient of a fingerprint misses, and nothing else does.

Covers: representations (images and their order, split, prior, weights, input size, layer, type, crops;
not names, places, times, labels, batches, threads, shards, workspaces); every setting of a run; targets
of other images, and with their rows in another order, are refused.
"""

import os
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from command_line import run_rela
from pictures import save_tree
from PIL import Image

from rela.errors import DataError
from rela.pipeline.artifact import Artifact
from rela.pipeline.errors import CorruptArtifactError
from rela.priors import PriorRequest
from rela.representations.matrix_file import ROWS_PER_PART, write_matrix
from rela.stages.embed.embed import embed, find_representations
from rela.stages.priors.identify import identify
from rela.stages.settings import EmbedSettings
from rela.stages.train.fit import _refuse_other_images
from rela.stages.train.resolve import resolve_settings
from rela.stages.train.targets import TARGETS_FILE, make_targets
from rela.stages.train.train import _config
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

PRIOR = PriorRequest("random:shufflenet_v2_x0_5", image_size=16)
SETTINGS = EmbedSettings()
CONTENT: list[dict[str, Any]] = [{"dtype": "float32"}, {"crops": 2}]
SPEED: list[dict[str, Any]] = [{"batch_size": 3}, {"threads": 1}, {"device": "cpu"}]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    paths = (f"{split}/class{i % 3}/{i:02}.png" for split in ("train", "val") for i in range(12))
    return save_tree(tmp_path_factory.mktemp("images"), dict.fromkeys(paths, (16, 16)))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Workspace:
    """With a data set `first`, embedded once."""
    space = Workspace(tmp_path_factory.mktemp("workspace"))
    run_rela("--workspace", space.root, "convert", tree, "--name", "first")
    embed(space, space.dataset("first"), PRIOR, SETTINGS, say=lambda line: None)
    return space


def is_hit(
    workspace: Workspace, dataset: str = "first", request: PriorRequest = PRIOR,
    settings: EmbedSettings = SETTINGS, split: str = "train",
) -> bool:  # fmt: skip
    """Whether `embed` would find that it was done before, the prior being known."""
    identify(workspace, request)
    found = find_representations(workspace, workspace.dataset(dataset), request, settings, split)
    return found is not None


@pytest.mark.parametrize(
    ("other", "hits"),
    [
        ({}, True),
        ({"request": replace(PRIOR, name="random:mobilenet_v3_small")}, False),
        ({"request": replace(PRIOR, seed=1)}, False),
        ({"request": replace(PRIOR, image_size=32)}, False),
        ({"request": replace(PRIOR, layer="stage3")}, False),
        ({"split": "val"}, False),
        *(({"settings": replace(SETTINGS, **other)}, False) for other in CONTENT),
        *(({"settings": replace(SETTINGS, **other)}, True) for other in SPEED),
    ],
    ids=["same", "architecture", "weights", "input size", "layer", "split", *map(str, CONTENT + SPEED)],
)  # fmt: skip
def test_what_is_embedded_counts_and_how_does_not(
    workspace: Workspace, other: dict[str, Any], hits: bool
):
    assert is_hit(workspace, **other) == hits


def one_level_brighter(tree: Path) -> None:
    path = tree / "train" / "class0" / "00.png"
    pixels = np.array(Image.open(path))
    pixels[3, 4, 1] ^= 1
    Image.fromarray(pixels).save(path)


def one_image_less(tree: Path) -> None:
    (tree / "train" / "class0" / "00.png").unlink()


def another_order(tree: Path) -> None:
    path = tree / "train" / "class0" / "00.png"
    path.rename(path.with_name("99.png"))


def other_labels(tree: Path) -> None:
    (tree / "train" / "class0").rename(tree / "train" / "class00")
    (tree / "val" / "class0").rename(tree / "val" / "class00")


def other_times(tree: Path) -> None:
    for path in tree.rglob("*"):
        os.utime(path, (1, 1))


def converted(workspace: Workspace, tree: Path, folder: Path, change: Any) -> str:
    """The name of the data set of the changed images, made unless it exists."""
    name: str = change.__name__
    elsewhere = shutil.copytree(tree, folder / name)
    change(elsewhere)
    if name not in {dataset.name for dataset in workspace.datasets()}:
        run_rela(
            "--workspace", workspace.root, "convert", elsewhere, "--name", name, "--workers", 1
        )
    return name


@pytest.mark.parametrize(
    ("change", "hits"),
    [
        (one_level_brighter, False),
        (one_image_less, False),
        (another_order, False),
        (other_labels, True),
        (other_times, True),
    ],
)
def test_images_and_their_order_count_and_names_do_not(
    workspace: Workspace, tree: Path, tmp_path: Path, change, hits: bool
):
    assert is_hit(workspace, converted(workspace, tree, tmp_path, change)) == hits


def test_how_many_compute_does_not_count(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert is_hit(workspace)


def test_where_the_workspace_lies_does_not_count(workspace: Workspace, tmp_path: Path):
    assert is_hit(Workspace(shutil.copytree(workspace.root, tmp_path / "moved")))


# Runs: another value for every setting. A new setting has to be sorted in here.

OTHER_RUN = {
    "prior": "none", "method": "simclr", "hyperparameters": "paper", "model": "resnet18",
    "image_size": 64, "handover": 0.25, "head": "learned", "target_width": 3, "data_ratio": 0.5,
    "epochs": 7, "batch_size": 6, "accumulate": 2, "optimizer": "sgd", "lr": 0.123,
    "weight_decay": 0.456, "schedule": "cosine", "warmup_epochs": 1, "ema": "cosine", "local_crops": 2,
    "min_scale": 0.3, "init": "file:a.pth#0123456789abcdef",
    "anchor": 0.5, "dense": 0.5, "seed": 5, "precision": "bf16-mixed",
}  # fmt: skip
SAME_RUN = {"devices": "2", "logger": "none", "checkpoint_minutes": 1.0, "rank_timeout": 1.0}
FROM_REPRESENTATIONS = {"crops", "layer", "maps"}  # which count themselves


def run_key(workspace: Workspace, **others: object) -> str:
    dataset = workspace.dataset("first")
    settings = resolve_settings(dataset, replace(TrainSettings(), **others))
    representations = None
    if settings.prior != "none":
        representations = find_representations(workspace, dataset, PRIOR, SETTINGS)
    return _config(dataset, settings, representations).fingerprint


def test_every_setting_of_a_run_is_covered():
    sorted_in = {*OTHER_RUN, *SAME_RUN, *FROM_REPRESENTATIONS}
    assert sorted_in == {field.name for field in fields(TrainSettings)}


@pytest.mark.parametrize("name", [*OTHER_RUN, *SAME_RUN])
def test_settings_make_another_run_except_where_it_is_trained(workspace: Workspace, name: str):
    value = {**OTHER_RUN, **SAME_RUN}[name]
    assert (run_key(workspace, **{name: value}) == run_key(workspace)) == (name in SAME_RUN)


# Targets that do not belong to these images


@pytest.fixture
def targets(workspace: Workspace, tmp_path: Path) -> Artifact:
    space = Workspace(shutil.copytree(workspace.root, tmp_path / "own"))
    representations = find_representations(space, space.dataset("first"), PRIOR, SETTINGS)
    assert representations is not None
    return make_targets(space, representations, 4)


def test_targets_of_other_images_are_refused(
    workspace: Workspace, targets: Artifact, tree: Path, tmp_path: Path
):
    _refuse_other_images(targets, workspace.dataset("first"))
    for change in (one_level_brighter, another_order):
        name = converted(workspace, tree, tmp_path, change)
        with pytest.raises(DataError, match="belongs to other images"):
            _refuse_other_images(targets, workspace.dataset(name))


def test_targets_with_rows_in_another_order_are_refused(targets: Artifact):
    path = targets.path / TARGETS_FILE
    targets.sound_file(TARGETS_FILE)
    with h5py.File(path) as file:
        rows, attributes = file["representations"][()], dict(file.attrs)
    shuffled = rows[::-1]  # in a file that is sound in itself
    parts = (shuffled[i : i + ROWS_PER_PART] for i in range(0, len(rows), ROWS_PER_PART))
    path.unlink()
    write_matrix(path, parts, rows.shape, rows.dtype, attributes)
    with pytest.raises(CorruptArtifactError, match=r"targets\.h5 is damaged"):
        targets.sound_file(TARGETS_FILE)
