"""--split: one split of a source as a data set, such as an unlabelled test beside a labelled train.

What is left out is said with this option, in every kind of source; it is taken from the message and used.
What a data set calls val is `--split val`, whatever it is called in its source.
"""

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import run_rela
from opened import paths_and_labels
from pictures import png

from rela.errors import ChoiceError
from rela.sources import open_source
from rela.sources.source import SourceOptions
from rela.stages.left_out import oddities

TRAIN, TEST = ["0.png", "1.png", "2.png"], ["8.png", "9.png"]


def table(root: Path) -> Path:
    rows = [f"{name},train,{i % 2}" for i, name in enumerate(TRAIN)] + [f"{n},test," for n in TEST]
    root.mkdir()
    (root / "list.csv").write_text("\n".join(["path,split,label", *rows]))
    return root / "list.csv"


def shards(root: Path) -> Path:
    root.mkdir()
    for split, names in (("train", TRAIN), ("test", TEST)):
        with tarfile.open(root / f"{split}-0.tar", "w") as tar:
            for i, name in enumerate(names):
                tar.addfile(tarfile.TarInfo(name))
                if split == "train":
                    label = tarfile.TarInfo(name.replace("png", "cls"))
                    label.size = 1
                    tar.addfile(label, io.BytesIO(str(i % 2).encode()))
    return root


def rows_of_images(root: Path) -> Path:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    root.mkdir()
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    for split, labels in (("train", [0, 1, 0]), ("test", [-1, -1])):
        images = [{"bytes": b"x", "path": None}] * len(labels)
        rows = pyarrow.table({"image": images, "label": labels}).replace_schema_metadata(metadata)
        parquet.write_table(rows, root / f"{split}-00000-of-00001.parquet")
    return root


def archive(root: Path) -> Path:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as file:
        for i, name in enumerate(TRAIN):
            file.writestr(f"set/train/{'ab'[i % 2]}/{name}", b"")
        for name in TEST:
            file.writestr(f"set/test/{name}", b"")
    return root.with_suffix(".zip")


@pytest.mark.parametrize("make", [table, shards, rows_of_images, archive])
def test_an_unlabelled_split_is_converted_by_the_option_that_is_printed(
    tmp_path: Path, make: Callable[[Path], Path]
):
    path = make(tmp_path / "source")
    source = open_source(path, "auto", SourceOptions())
    assert len(source.splits["train"]) == 3 and "val" not in source.splits
    (said,) = (line for line in oddities(source) if "left out" in line)
    split = re.findall(r"--split (\w+)", said)[0]
    chosen = open_source(path, "auto", SourceOptions(split=split))
    assert list(chosen.splits) == ["train"] and chosen.class_names == []
    labels = [label for _, label in paths_and_labels(chosen)]
    assert labels == [-1, -1] and not any("left out" in line for line in oddities(chosen))
    named_here = open_source(path, "auto", SourceOptions(split="val"))
    assert paths_and_labels(named_here) == paths_and_labels(chosen)
    with pytest.raises(ChoiceError, match=r"--split dev: .* has .*train"):
        open_source(path, "auto", SourceOptions(split="dev"))


def test_a_third_split_is_converted_by_the_option_that_is_printed(tmp_path: Path):
    for name in (*TRAIN, *TEST):
        (tmp_path / name).write_bytes(png(int(name[0]), 8, 8))
    splits = ["train", "train", "val", "it's", "it's"]
    rows = [f'{name},"{split}",a' for name, split in zip([*TRAIN, *TEST], splits, strict=True)]
    (tmp_path / "list.csv").write_text("\n".join(["path,split,label", *rows]))
    words = ("--workspace", tmp_path / "ws", "convert", tmp_path / "list.csv", "--workers", 1)
    said = run_rela(*words).stderr
    assert "--split 'it'\"'\"'s' and another --name" in said
    assert (
        "2 images in 1 class"
        in run_rela(*words, "--split", "it's", "--name", "x", "--val-fraction", 0).stdout
    )


def test_two_train_splits_are_chosen_between(tmp_path: Path):
    (tmp_path / "list.csv").write_text("path,split\n1.png,train\n2.png,Training\n")
    with pytest.raises(
        ChoiceError, match="2 train splits, train, Training; choose one: --split train"
    ):
        open_source(tmp_path / "list.csv", "auto", SourceOptions())
    for asked, path in (("train", "1.png"), ("Training", "2.png")):
        source = open_source(tmp_path / "list.csv", "auto", SourceOptions(split=asked))
        assert paths_and_labels(source) == [(path, -1)]


@pytest.mark.parametrize("asked", ["test", "Test", "holdout"])
def test_a_folder_is_chosen_by_its_name_or_meaning(tmp_path: Path, asked: str):
    for name in ("data/train/a/1.png", "data/Test/a/2.png", "data/hold-out/a/3.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    source = open_source(tmp_path, "folder", SourceOptions(split=asked))
    number = 3 if asked == "holdout" else 2
    assert [path[-5:] for path, _ in paths_and_labels(source)] == [f"{number}.png"]
