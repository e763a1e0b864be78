"""`rela eval` through the command line: what is measured, what is kept, what is spread over seeds.

Covers: another protocol adds to the stored results, and another setting of one measures that one
again; runs that differ in their seed, probe seeds, --all; fine-tuning of runs and priors; segmentation
with and without a data set; what is refused.
"""

import shutil
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import TINY, Rela, read_json
from finished_runs import finished_run
from pictures import MakeTree, save_tree
from PIL import Image

from rela.evaluation.protocols import (
    PROTOCOLS,
    DenseKNNProtocol,
    FinetuneProtocol,
    KNNProtocol,
    SegmentationProtocol,
)
from rela.stages.evaluate.evaluate import evaluate
from rela.stages.evaluate.probing import Probing
from rela.stages.recipe.results import results_of
from rela.stages.requests import Evaluate
from rela.stages.workspace.workspace import Workspace

PRIOR = ["--prior", "random:shufflenet_v2_x0_5", "--image-size", "32"]
TRAIN = ["train", "--prior", "none", "--epochs", "1", *TINY]
QUICK = ["--protocol", "knn20", "--protocol", "linear-reference"]


@pytest.fixture(autouse=True)
def short(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small tree is a data set, and trained protocols are short."""
    for percent in (100, 10, 1):
        monkeypatch.setitem(PROTOCOLS, f"finetune-{percent}", FinetuneProtocol(percent, 2))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what is measured, by protocol."""
    counts: Counter[str] = Counter()
    measure = Probing.measure

    def counted(probing: Probing, protocol: Any, seed: int) -> dict[str, Any]:
        counts[protocol.name] += 1
        return measure(probing, protocol, seed)

    monkeypatch.setattr(Probing, "measure", counted)
    return counts


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A parent of VOCdevkit/VOC2012: four train and two val images, classes 0 to 2, void."""
    root = tmp_path / "parent" / "VOCdevkit" / "VOC2012"
    for folder in ("SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    save_tree(root, {f"JPEGImages/{i}.jpg": (30, 40) for i in range(6)})
    for i in range(6):
        values = np.random.default_rng(i).choice([0, 1, 2, 255], (30, 40))
        mask = Image.new("P", (40, 30))
        mask.putpalette([(37 * v) % 256 for v in range(768)])
        mask.putdata(values.ravel().tolist())
        mask.save(root / f"SegmentationClass/{i}.png")
    (root / "ImageSets/Segmentation/train.txt").write_text("0\n1\n2\n3\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("4\n5\n")
    return tmp_path / "parent"


def spread(values: list[float]) -> Any:
    return pytest.approx({"mean": statistics.fmean(values), "std": statistics.stdev(values)})


def test_protocols_are_measured_when_asked_for_and_kept(
    rela: Rela, measured: Counter[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    rela(*TRAIN)
    rela("eval", "--protocol", "knn20")
    rela("eval", "--protocol", "linear-reference", "--protocol", "finetune-100")
    assert measured == {"knn20": 1, "linear-reference": 1, "finetune-100": 1}
    path = tmp_path / "workspace/runs/images-byol-1/eval.json"
    before = read_json(path)
    assert set(before["accuracies"]) == set(measured)
    seconds = [m["by_probe_seed"]["0"]["seconds"] for m in before["measurements"].values()]
    assert before["seconds"] == pytest.approx(sum(seconds), abs=1e-3)

    monkeypatch.setitem(PROTOCOLS, "knn20", KNNProtocol(20, temperature=0.2))
    found = read_json(rela("eval", *QUICK, "--protocol", "finetune-100", "--json"))
    assert measured == {"knn20": 2, "linear-reference": 1, "finetune-100": 1}
    assert not found["cached"]
    after = read_json(path)["measurements"]
    assert after["knn20"]["settings"]["temperature"] == 0.2
    assert after["linear-reference"] == before["measurements"]["linear-reference"]
    status = read_json(rela("status", "--json"))["runs"][0]
    assert status["knn20"] == after["knn20"]["by_probe_seed"]["0"]["top1"]

    settings = "20-NN: k = 20, T = 0.2, cosine, centre-crop features"
    assert settings in rela("eval", *QUICK, "--verbose").stdout
    words = rela("eval", *QUICK).stdout
    assert settings not in words and "written to" not in words
    assert "batch 24 (cut from 128)" in words


def test_the_table_shows_the_real_k(rela: Rela):
    words = rela("eval", *PRIOR, "--protocol", "knn200").stdout
    assert "200-NN: k = 24 (all train images; 200 asked for)" in words


def test_runs_of_several_seeds_have_a_mean_and_a_spread(rela: Rela, measured: Counter[str]):
    elsewhere = ("--logger", "none", "--checkpoint-minutes", 3, "--rank-timeout", 1)
    rela(*TRAIN, "--seed", 0, "--name", "s0")
    rela(*TRAIN, "--seed", 1, "--name", "s1", *elsewhere)  # which does not change the weights
    rela(*TRAIN, "--lr", 0.01, "--name", "other")
    names = "name one of other, s0, s1"
    assert names in rela("eval", exit_code=2).stderr
    found = read_json(rela("eval", "s0", "s1", "other", "s1", *QUICK, "--json"))
    assert [e["run"] for e in found["evaluations"]] == ["s0", "s1", "other"]
    [summary] = found["over_run_seeds"]
    assert (summary["runs"], summary["seeds"]) == (["s0", "s1"], [0, 1])
    for protocol in ("knn20", "linear-reference"):
        single = [e["results"]["accuracies"][protocol]["top1"] for e in found["evaluations"][:2]]
        assert summary["measures"][protocol]["top1"] == spread(single)
    workspace = Workspace(Path("workspace"))
    request = Evaluate(["s0", "s1", "other"], protocol=("knn20", "linear-reference"))
    rows = results_of(workspace, evaluate(workspace, request))
    assert [(row.seeds, list(row.settings)) for row in rows] == [([0, 1], ["lr"]), ([0], ["lr"])]
    every = rela("eval", "--all", *QUICK).stdout
    assert measured == {"knn20": 3, "linear-reference": 3}
    assert every.count("mean ± std over run seeds 0, 1") == 2
    assert "give names of runs or --all" in rela("eval", "s0", "--all", exit_code=2).stderr


def test_probe_seeds_are_repetitions_of_one_run(rela: Rela, measured: Counter[str]):
    rela(*TRAIN)
    rela("eval", *QUICK)
    asked = ("eval", *QUICK, "--protocol", "finetune-10", "--seeds", 3)
    found = read_json(rela(*asked, "--json"))
    assert measured == {"knn20": 1, "linear-reference": 3, "finetune-10": 3}
    records = found["evaluations"][0]["results"]["measurements"]
    assert list(records["knn20"]["by_probe_seed"]) == ["0"]
    for protocol in ("linear-reference", "finetune-10"):
        single = [records[protocol]["by_probe_seed"][s]["top1"] for s in "012"]
        assert found["over_probe_seeds"][0][protocol]["top1"] == spread(single)
    assert found["over_run_seeds"] == []
    assert "mean ± std over 3 probe seeds" in rela(*asked).stdout
    assert "probe seeds" not in rela("eval", *QUICK).stdout  # the first again, nothing measured
    assert measured.total() == 7


def test_two_probes_of_different_kinds_chance_and_seeds_are_always_shown(
    rela: Rela, small_tree: Path
):
    rela(*TRAIN)
    found = read_json(rela("eval", "--json"))
    [evaluation] = found["evaluations"]
    assert list(evaluation["results"]["accuracies"]) == ["knn20", "linear"]
    linear = evaluation["results"]["measurements"]["linear"]
    assert linear["how"].startswith("logistic regression to convergence on standardised")
    chance = evaluation["chance"]
    counts = Counter(path.parent.name for path in (small_tree / "val").rglob("*.png"))
    assert chance["num_images"] == counts.total()
    assert chance["top1"] == pytest.approx(max(counts.values()) / counts.total())
    share, total = chance["top1"], chance["num_images"]
    limit = share + 3 * (share * (1 - share) / total) ** 0.5
    assert chance["limit"] == pytest.approx(min(1.0, limit))
    below = {one["protocol"] for one in found["below_chance"]}
    accuracies = evaluation["results"]["accuracies"]
    assert below == {p for p, f in accuracies.items() if f["top1"] <= chance["limit"]}
    assert found["disagreements"] == []
    lines = rela("eval").stdout.splitlines()
    assert lines[1].split()[-2:] == ["run", "seeds"]
    [row] = [line.split() for line in lines if line.startswith("chance (the largest class)")]
    assert f"{100 * share:.2f}" in row
    assert any("spread over seeds is not known" in line for line in lines)
    assert any(f"with the {total} validation images of images" in line for line in lines)
    said = [line for line in lines if "is no better than chance" in line]
    assert len(said) == len(below)


def test_all_leaves_out_what_cannot_be_evaluated(rela: Rela, make_tree: MakeTree):
    rela(*TRAIN, "--name", "labelled")
    rela("convert", make_tree({f"{i}.png": (16, 16) for i in range(16)}, "flat"))
    rela("train", "flat", *TRAIN[1:], "--name", "unlabelled")
    result = rela("eval", "--all", "--protocol", "knn20")
    assert "skipped run unlabelled: data set flat has no labels" in result.stderr
    assert "labelled" in result.stdout


def test_accuracies_name_their_data_set(rela: Rela, make_tree: MakeTree, tmp_path: Path):
    sizes = {f"{s}/{c}/{i}.png": (16, 16) for s in ("train", "val") for c in "xy" for i in range(8)}
    rela("convert", make_tree(sizes, "others"))
    for dataset in ("images", "others"):
        finished_run(tmp_path / "workspace", dataset, "shufflenet_v2_x0_5", f"on-{dataset}")
    lines = rela("eval", "--all", "--protocol", "knn20").stdout.splitlines()
    assert lines[1].split()[:4] == ["evaluated", "data", "set", "protocol"]
    expected = [[f"on-{dataset}", dataset, "20-NN"] for dataset in ("images", "others")]
    assert [line.split()[:3] for line in lines[3:5]] == expected
    assert "data set" not in rela("eval", "on-images", "--protocol", "knn20").stdout.splitlines()[1]


def test_a_prior_is_fine_tuned(rela: Rela, tmp_path: Path):
    words = rela("eval", *PRIOR, "--protocol", "finetune-10").stdout
    assert "whole model trained on 3 images (10 % of the labels, class-balanced)" in words
    assert "batch 3 (cut from 256)" in words
    assert not (tmp_path / "workspace/representations").exists()  # no features are needed


def test_segmentation_of_a_run_and_of_a_prior_without_a_data_set(
    rela: Rela, measured: Counter[str], voc: Path, monkeypatch: pytest.MonkeyPatch
):
    small = SegmentationProtocol(image_size=64, batch_size=2, epochs=1)
    monkeypatch.setitem(PROTOCOLS, "segmentation", small)
    monkeypatch.setitem(PROTOCOLS, "dense-knn", DenseKNNProtocol(image_size=64, max_positions=9))
    rela(*TRAIN)
    asked = ("--protocol", "segmentation", "--voc", voc)
    found = read_json(rela("eval", *asked, "--seeds", 2, "--json"))
    figures = found["evaluations"][0]["results"]["accuracies"]["segmentation"]
    assert 0 <= figures["miou"] <= figures["pixel_accuracy"] <= 1
    assert (figures["num_train_images"], figures["num_val_images"]) == (4, 2)
    both = (*asked, "--protocol", "dense-knn")
    words = rela("--workspace", "elsewhere", "eval", *PRIOR, *both, "--verbose").stdout
    assert "mIoU %  pixel accuracy %" in words
    assert "chance mIoU %  chance accuracy %  position accuracy %" in words
    assert "k = 9 (all train positions; 20 asked for), T = 0.07, cosine, positions of" in words
    assert measured["dense-knn"] == 1
    assert "frozen backbone, FCN head on 1024×2×2 feature maps, stretched to 64²" in words
    assert measured["segmentation"] == 3
    rela("eval", *asked)
    assert measured["segmentation"] == 3
    # the same name, other masks
    mask = voc / "VOCdevkit/VOC2012/SegmentationClass/5.png"
    shutil.copy(mask.with_name("4.png"), mask)
    rela("eval", *asked)
    assert measured["segmentation"] == 4
    Image.new("L", (40, 30), 7).save(mask)
    assert "contains the class 7" in rela("eval", *asked, "--voc-classes", 7, exit_code=65).stderr


def test_wrong_options_are_refused(rela: Rela, voc: Path, tmp_path: Path):
    rela(*TRAIN)
    said = rela("eval", "--protocol", "segmentation", exit_code=2).stderr
    assert "--protocol segmentation requires --voc PATH" in said
    assert "add --protocol segmentation" in rela("eval", "--voc", voc, exit_code=2).stderr
    wrong = ("eval", "--protocol", "segmentation", "--voc", tmp_path)
    assert "not in the layout of Pascal VOC 2012" in rela(*wrong, exit_code=2).stderr
    said = rela("eval", "--protocol", "knn21", exit_code=2).stderr
    assert "--protocol knn21: expected one of knn20, " in said


def test_validation_images_of_few_classes_are_warned_of(rela: Rela, make_tree: MakeTree):
    sizes = {f"train/{c}/{i}.png": (16, 16) for c in "abc" for i in range(4)}
    tree = make_tree({**sizes, "val/b/1.png": (16, 16), "val/b/2.png": (16, 16)}, "few")
    warning = (
        "warning: the 2 validation images of few are of 1 of 3 classes; accuracies on them say nothing "
        "about a, c"
    )
    assert warning in rela("convert", tree).stderr
    words = (
        "eval",
        "--dataset",
        "few",
        "--prior",
        "random:shufflenet_v2_x0_5",
        "--protocol",
        "knn20",
    )
    assert warning in rela(*words, "--image-size", 32).stdout.splitlines()
    [found] = read_json(rela(*words, "--image-size", 32, "--json"))["evaluations"]
    assert found["coverage"] == {
        "dataset": "few", "num_images": 2, "num_classes": 1, "of_classes": 3, "missing": ["a", "c"],
    }  # fmt: skip
