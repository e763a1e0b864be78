"""Choosing and combining priors through the command line, on a tiny tree of real image files.

Covers: two priors embedded, combined and trained with, by several names, in shards, and again as a hit;
the ledger; what is not embedded, and what is proposed instead; ranking against NumPy and by the stated
rule, with own runs marked; the list with and without weights on disk and packages; errors of sub-commands.
"""

import shlex
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import h5py
import numpy as np
import pytest
import torch
from click.testing import Result
from command_line import TINY, Rela, read_json, run_python
from pictures import MakeTree

from rela.models.backbones import build_backbone
from rela.pipeline.artifact import open_artifact
from rela.representations.quality import sample_rows

A, B = "random:shufflenet_v2_x0_5", "random:squeezenet1_1"
NAME_A, NAME_B = f"{A}-seed0@32px", f"{B}-seed0@32px"
BOTH = ("embed", "--prior", A, "--prior", B, "--image-size", 32)
WORKSPACE = Path("workspace")


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


def matrices() -> dict[str, np.ndarray]:
    """Stored representations by the name of the prior, read by plain h5py."""
    found = {}
    for path in WORKSPACE.glob("representations/*/representations.h5"):
        with h5py.File(path) as file:
            found[file.attrs["prior"]] = file["representations"][()].astype(np.float64)
    return found


def rewrite_crops(prior: str, crops: int) -> None:
    """Pretend that the representations by `prior` are those of random crops."""
    for directory in WORKSPACE.glob("representations/*"):
        artifact = open_artifact(directory)
        if artifact is not None and artifact.manifest.content["prior"]["name"] == prior:
            artifact.manifest.content["crops"] = crops
            artifact.manifest.write(directory)


def test_two_priors_are_combined_and_trained_with(rela: Rela, images: Path):
    made = rela(*BOTH, "--json")
    assert not read_json(made)["cached"]
    found = matrices()
    blocks = []
    for name in (NAME_A, NAME_B):
        varying = found[name][:, np.ptp(found[name], axis=0) > 0]
        standard = (varying - varying.mean(axis=0)) / varying.std(axis=0)
        blocks.append(standard / np.sqrt(varying.shape[1]))
    combination = found[f"{NAME_A}+{NAME_B}"]
    np.testing.assert_allclose(combination, np.hstack(blocks), rtol=2e-3, atol=1e-6)

    assert read_json(rela(*BOTH, "--json"))["cached"]
    assert "combined representations" in rela(*BOTH).stdout
    rows = read_json(rela("status", "--json"))["representations"]
    assert {row["prior"] for row in rows} == {NAME_A, NAME_B, f"{NAME_A}+{NAME_B}"}
    message = rela("train", "--epochs", 1, *TINY, exit_code=2).stderr
    assert all(name in message for name in ("3 priors", NAME_A, NAME_B, f"{NAME_A}+{NAME_B}"))

    rela("train", "--prior", f"{NAME_A}+{NAME_B}", "--epochs", 1, *TINY)
    run = WORKSPACE / "runs/images-byol-1"
    assert read_json(run / "manifest.json")["content"]["prior"] == f"{NAME_A}+{NAME_B}"
    seconds = read_json(run / "cost.json")["seconds"]
    parts = [a for a in map(open_artifact, WORKSPACE.glob("representations/*")) if a is not None]
    spent = {a.manifest.content["prior"]["name"]: a.manifest.provenance["seconds"] for a in parts}
    assert seconds["embed"] == pytest.approx(spent[NAME_A] + spent[NAME_B], abs=1e-3)
    assert seconds["combine"] == spent[f"{NAME_A}+{NAME_B}"]
    [same] = [a for a in parts if "+" in a.name]
    again = rela("train", "--prior", same.name, "--epochs", 1, *TINY, "--json")
    assert read_json(again)["cached"]


def test_a_combination_is_found_by_its_request_and_order(rela: Rela, make_tree: MakeTree):
    rela("convert", make_tree({f"{c}/{i}.png": (32, 32) for c in "ab" for i in range(8)}))
    rela("embed", "--prior", A, "--prior", B)  # at the data set's own size, like any name below
    train = ("train", "--epochs", 1, *TINY, "--prior")
    turned = rela(*train, f"{B}+{A}", exit_code=2).stderr
    assert f"rela embed images --prior {B} --prior {A}" in turned
    rela(*train, f"{A}+{B}")
    rela(*train, f"{B}+{A}", "--embed")
    runs = read_json(rela("status", "--json"))["runs"]
    assert [run["prior"] for run in runs] == [f"{A}-seed0+{B}-seed0", f"{B}-seed0+{A}-seed0"]


def test_a_run_name_in_a_combination_means_the_current_run(
    rela: Rela, images: Path, make_tree: MakeTree
):
    rela("convert", make_tree({f"{i}.png": (20, 20) for i in range(12)}, "other"))
    teacher = ("train", "images", "--prior", "none", "--epochs", 1, *TINY, "--name", "teacher")
    rela(*teacher)
    rela("embed", "other", "--prior", "teacher", "--prior", A)
    (WORKSPACE / "runs/teacher").rename(WORKSPACE / "runs/old-teacher")
    rela(*teacher, "--seed", 1)
    student = ("train", "other", "--prior", f"teacher+{A}", "--epochs", 1, *TINY)
    assert "has not been embedded" in rela(*student, exit_code=2).stderr


def test_a_name_that_is_not_embedded_loads_nothing_and_is_answered_with_those_that_are(
    rela: Rela, images: Path, monkeypatch: pytest.MonkeyPatch
):
    rela("embed", "--prior", A, "--image-size", 32)
    monkeypatch.setattr(
        "rela.stages.priors.identify.resolve", Mock(side_effect=AssertionError("loaded"))
    )
    for command in (("train", *TINY), ("neighbors", "images/train/ant/00.png")):
        said = rela(*command, "--prior", "resnet18", exit_code=2).stderr
        assert f"embedded: {NAME_A}, choose" in said
        assert "`rela embed images --prior resnet18`" in said
    said = rela("train", "--prior", "resnet-18", *TINY, exit_code=2).stderr
    assert "did you mean resnet18" in said


def test_a_prior_that_works_here_is_proposed(rela: Rela, images: Path, tmp_path: Path):
    network = build_backbone("shufflenet_v2_x0_5", 32, seed=0)
    torch.save(network.state_dict(), tmp_path / "own.pth")
    own = ("--prior", "shufflenet_v2_x0_5", "--weights", "own.pth", "--image-size", "32")
    rela("embed", "--prior", A, "--split", "val", "--image-size", 32)
    said = rela("train", *TINY, exit_code=2).stderr
    assert f"only {NAME_A} for those of val; run `rela embed images --prior resnet18`" in said
    rela("embed", *own, "--split", "val")
    proposed = shlex.join(
        ["rela", "embed", "images", *own[:3], str(tmp_path / "own.pth"), *own[4:]]
    )
    assert f"run `{proposed}`" in rela("train", *TINY, exit_code=2).stderr
    assert f"next: `{proposed}`" in rela("convert", "images").stdout
    (tmp_path / "own.pth").unlink()
    assert "next: `rela embed images --prior resnet18`" in rela("convert", "images").stdout


def test_shards_combine_to_the_bytes_of_one_process(
    rela: Rela, small_tree: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rela.representations.matrix_file.ROWS_PER_PART", 4)
    monkeypatch.setattr("rela.representations.concatenation.ROWS_PER_PART", 4)
    contents = []
    for workspace, shards in (("one", ["0/1"]), ("three", ["2/3", "0/3", "1/3"])):
        rela("--workspace", workspace, "convert", small_tree)
        for shard in shards:
            said = rela("--workspace", workspace, *BOTH, "--batch-size", 4, "--shard", shard)
            assert ("combined representations" in said.stdout) == (shard == shards[-1])
        [path] = Path(workspace).glob("representations/*+*/representations.h5")
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def test_targets_of_crops_are_combined_with_their_crops(rela: Rela, images: Path):
    rela(*BOTH, "--crops", 2)
    crops = {}
    for path in WORKSPACE.glob("representations/*/representations.h5"):
        with h5py.File(path) as file:
            assert len(file["representations"]) == 2 * 24
            crops[file.attrs["prior"]] = file["crops"][()]
    np.testing.assert_array_equal(crops[f"{NAME_A}+{NAME_B}"], crops[NAME_A])
    rela("train", "--prior", f"{NAME_A}+{NAME_B}", "--epochs", 1, *TINY)
    assert "2 crops" in rela("priors", "list").stdout
    assert "random crops are not ranked" in rela("priors", "rank", exit_code=2).stderr


def test_what_cannot_be_combined_is_refused(rela: Rela, images: Path):
    message = rela(*BOTH, "--weights", "some.pt", exit_code=2).stderr
    assert "--weights describes one --prior" in message
    assert "given twice" in rela(*BOTH, "--prior", A, exit_code=2).stderr
    assert "no model" in rela(*BOTH, "--prior", "resnet1", exit_code=2).stderr
    assert not (WORKSPACE / "representations").exists()  # nothing was embedded in vain
    for prior in (A, B):
        rela("embed", "--prior", prior, "--image-size", 32)
    rewrite_crops(NAME_B, 2)
    assert "0 and 2 crops" in rela(*BOTH, exit_code=2).stderr


def test_priors_are_ranked_on_the_same_rows(rela: Rela, images: Path):
    rela("train", "--prior", "none", "--epochs", 1, *TINY, "--name", "own")
    rela(*BOTH)
    rela("embed", "--prior", "own", "--prior", B, "--image-size", 32)
    rewrite_crops(NAME_B, 2)  # is left out then
    ranking = read_json(rela("priors", "rank", "--json", "--rows", 20))
    assert (ranking["num_images"], ranking["num_rows"], ranking["num_held_out"]) == (24, 20, 4)
    assert ranking["sorted_by"] == "20-NN accuracy"
    accuracies = [ranked["knn"] for ranked in ranking["priors"]]
    assert accuracies == sorted(accuracies, reverse=True)
    names = [ranked["prior"] for ranked in ranking["priors"]]
    assert sorted(names) == sorted(["own", NAME_A, f"{NAME_A}+{NAME_B}", f"own+{NAME_B}"])
    assert {r["prior"] for r in ranking["priors"] if r["own_run"]} == {"own", f"own+{NAME_B}"}

    chosen = sample_rows(24, 20)
    labels = np.repeat(np.arange(3), 8)[chosen]
    found = matrices()
    for ranked in ranking["priors"]:
        rows = found[ranked["prior"]][chosen]
        shares = np.linalg.svd(rows, compute_uv=False)
        shares /= shares.sum()
        rank = np.exp(-(shares * np.log(shares)).sum())
        assert ranked["effective_rank"] == pytest.approx(rank, rel=1e-4)
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        weights = np.exp(unit[:4] @ unit[4:].T / 0.07)  # 16 neighbours, all of them
        votes = np.stack([weights[:, labels[4:] == c].sum(axis=1) for c in range(3)], axis=1)
        assert ranked["knn"] == (votes.argmax(axis=1) == labels[:4]).mean()
    cka = np.array(ranking["cka"])
    np.testing.assert_allclose(cka.diagonal(), 1)
    first, second = (found[n][chosen] - found[n][chosen].mean(axis=0) for n in names[:2])
    norms = np.linalg.norm(first.T @ first) * np.linalg.norm(second.T @ second)
    expected = np.square(first.T @ second).sum() / norms
    assert cka[0, 1] == pytest.approx(expected, abs=1e-5)

    shown = rela("priors", "rank", "--rows", 20).stdout
    assert "20 of 24 training images, 4 of them held out" in shown
    assert "own *" in shown and "* trained on these images" in shown


def test_without_labels_the_effective_rank_decides(rela: Rela, make_tree: MakeTree):
    rela("convert", make_tree({f"{i}.png": (16, 16) for i in range(16)}, "flat"))
    for prior in (A, B):
        rela("embed", "--prior", prior, "--image-size", 32)
    ranking = read_json(rela("priors", "rank", "--json"))
    assert ranking["sorted_by"] == "effective rank"
    ranks = [ranked["effective_rank"] for ranked in ranking["priors"]]
    assert ranks == sorted(ranks, reverse=True)
    assert {ranked["knn"] for ranked in ranking["priors"]} == {None}
    assert "best first by effective rank" in rela("priors", "rank").stdout


def test_errors_of_sub_commands_are_one_line(rela: Rela, small_tree: Path):
    message = rela("priors", "rank", exit_code=2).stderr
    assert message.startswith("rela: no data set") and message.count("\n") == 1
    rela("convert", small_tree)
    message = rela("priors", "rank", exit_code=2).stderr
    assert "rela embed images --prior" in message and message.count("\n") == 1
    assert "--rows" in rela("priors", "rank", "--rows", 1, exit_code=2).stderr


def listed(result: Result) -> dict[str, dict[str, Any]]:
    return {f"{row['source']} {row['prior']}": row for row in read_json(result)["priors"]}


def test_the_list_shows_weights_on_disk_and_what_is_embedded(
    rela: Rela, small_tree: Path, tmp_path: Path
):
    before = listed(rela("priors", "list", "--json"))
    assert "any classification model, such as resnet18" in before["torchvision NAME"]["note"]
    assert not WORKSPACE.exists()
    rela("convert", small_tree)
    rela(*BOTH)
    rela("train", "--prior", "none", "--epochs", 1, *TINY, "--name", "own")
    checkpoints = tmp_path / "TORCH_HOME/hub/checkpoints"
    checkpoints.mkdir(parents=True)
    for name in ("resnet18-f37072fd.pth", "shufflenetv2_x1-5666bf0f80.pth", "other.pth"):
        (checkpoints / name).write_bytes(b"x" * 1234)
    rows = listed(rela("priors", "list", "--json"))
    assert rows == listed(rela("priors", "list", "--json"))  # from the record
    assert rows["torchvision resnet18"]["note"] == "resnet18-f37072fd.pth, 1.2 kB"
    assert "torchvision shufflenet_v2_x1_0" in rows
    assert len([name for name in rows if name.startswith("torchvision")]) == 3
    others = rows["torchvision NAME"]["note"]
    assert int(others.split()[0]) > 70 and "resnet50" in others
    assert "trained on images" in rows["run own"]["note"]
    assert rows[f"random {NAME_A}"]["embedded"] == ["images"]
    assert rows[f"combination {NAME_A}+{NAME_B}"]["embedded"] == ["images"]
    assert NAME_A in rela("priors", "list").stdout


def test_the_list_names_missing_packages_and_counts_cached_models(
    rela: Rela, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    hub = tmp_path / "HF_HOME/hub"
    for name in ("models--timm--resnet50.a1_in1k", "models--timm--x", "datasets--timm--y"):
        (hub / name).mkdir(parents=True)
    found = {"open_clip": None}
    monkeypatch.setattr("rela.stages.priors.list.find_spec", lambda name: found.get(name, "found"))
    rows = listed(rela("priors", "list", "--json"))
    assert rows["timm timm:NAME"]["usable"]
    assert "2 in the Hugging Face cache" in rows["timm timm:NAME"]["note"]
    assert not rows["clip clip:NAME"]["usable"]
    assert "pip install 'rela[clip]'" in rows["clip clip:NAME"]["note"]


def test_the_list_imports_nothing_heavy(tmp_path: Path):
    heavy = "{'torch', 'torchvision', 'timm', 'open_clip', 'numba'}"
    code = (
        "import sys; from rela import cli\n"
        f"try: cli.main(['priors', 'list'])\nexcept SystemExit: assert not {heavy} & set(sys.modules)"
    )
    run_python("-c", code, check=True, cwd=tmp_path, env={"HOME": str(tmp_path)})
