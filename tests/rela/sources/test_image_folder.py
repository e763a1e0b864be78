"""Scanning image folders.

Covers: the three layouts and the names a validation split may have; the order of classes and images;
a class that only val has; stray, hidden and empty things; links and loops; the messages of what is
refused.
Files are empty: scanning opens none of them.
"""

import os
from pathlib import Path

import pytest
from empty_files import make, many
from opened import paths_and_labels as pairs

from rela.errors import DataError
from rela.sources.image_folder import scan
from rela.sources.splits.held_out import with_val
from rela.sources.splits.tree import make_output_folder

# Layouts: files, and the labels of every split; classes are named by their folders

TRAIN = {"train/a/1.png": 0, "train/b/1.png": 1}
LAYOUTS = {
    "class folders": {"train": {"cat/1.jpg": 0, "cat/2.png": 0, "dog/1.png": 1}},
    "train only": {"train": TRAIN},
    **{
        f"train and {name}": {"train": TRAIN, "val": {f"{name}/b/2.png": 1}}  # which lacks a class
        for name in ("val", "valid", "validation", "test")
    },
    "a class called train": {"train": {"bus/1.png": 0, "car/1.png": 1, "train/1.png": 2}},
    "deep in a class": {"train": {"a/2.png": 0, "a/x/y/1.png": 0, "b/z/1.png": 1}},
    "flat": {"train": {"1.png": -1, "2.png": -1}},
    "flat train": {"train": {"train/1.png": -1, "train/2.png": -1}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    expected = LAYOUTS[layout]
    files = [path for labels in expected.values() for path in labels]
    folder = scan(make(tmp_path, *reversed(files)))
    assert {split: dict(pairs(folder, split)) for split in folder.splits} == expected
    assert pairs(folder) == sorted(pairs(folder))
    number = 1 if files[0].startswith("train/") else 0
    labelled = {path.split("/")[number] for path, label in expected["train"].items() if label >= 0}
    assert folder.class_names == sorted(labelled) and folder.labelled == bool(labelled)


def test_val_is_preferred_to_test(tmp_path):
    folder = scan(make(tmp_path, "train/a/1.png", "test/a/1.png", "val/a/1.png"))
    assert pairs(folder, "val") == [("val/a/1.png", 0)]


# Order


def test_classes_and_images_come_in_the_order_of_their_names(tmp_path):
    names = ["b", "B", "a10", "a9", "é", "10", "9", "_"]
    files = [f"{name}/{image}.png" for name in names for image in ("z", "A", "10", "2")]
    folder = scan(make(tmp_path, *files))
    assert folder.class_names == sorted(names)
    assert pairs(folder) == [
        (f"{name}/{image}.png", label)
        for label, name in enumerate(sorted(names))
        for image in sorted(("z", "A", "10", "2"))
    ]


def test_class_numbers_are_those_of_torchvision(tmp_path):
    from torchvision.datasets import ImageFolder

    make(tmp_path, "b/2.png", "b/1.png", "a/1.png", "C/1.png", "a/deep/1.png")
    theirs = ImageFolder(str(tmp_path))
    assert scan(tmp_path).class_names == theirs.classes
    ours = {(str(tmp_path / path), label) for path, label in pairs(scan(tmp_path))}
    assert ours == set(theirs.samples)


def test_order_does_not_depend_on_when_files_were_made(tmp_path):
    files = many("train", a=9, b=9) + many("val", a=3, b=3)
    one = scan(make(tmp_path / "one", *files))
    other = scan(make(tmp_path / "other", *reversed(files)))
    assert one.splits == other.splits


@pytest.mark.parametrize("name", ["1.JPG", "1.Jpeg", "1.webp", "1.tif", "1.bmp", "1.tar.png"])
def test_images_are_known_by_suffix_in_any_case(tmp_path, name):
    assert pairs(scan(make(tmp_path, f"a/{name}"))) == [(f"a/{name}", 0)]


# Odd things


def test_what_is_not_an_image_is_stray(tmp_path):
    folder = scan(make(tmp_path, "a/1.png", "a/notes.txt", "a/png", "readme.md", "top.png"))
    assert pairs(folder) == [("a/1.png", 0)]
    assert folder.stray_files == ["a/notes.txt", "a/png", "readme.md", "top.png"]


def test_hidden_files_and_folders_are_skipped(tmp_path):
    names = ("a/1.png", "a/._1.png", ".git/1.png", "a/.cache/1.png", ".DS_Store")
    folder = scan(make(tmp_path, *names))
    assert pairs(folder) == [("a/1.png", 0)]
    assert folder.class_names == ["a"] and folder.stray_files == []


@pytest.mark.parametrize("images", [("a/1.png", "b/1.png"), ("train/a/1.png", "train/b/1.png")])
def test_a_report_beside_the_images_is_not_a_class(tmp_path, images):
    make(tmp_path, *images)
    expected = scan(tmp_path)
    make_output_folder(tmp_path / "rela-report")
    make(tmp_path, "rela-report/figure.png")
    assert scan(tmp_path) == expected


def test_a_folder_that_was_there_stays_a_class(tmp_path):
    make(tmp_path, "a/1.png", "b/1.png")
    make_output_folder(tmp_path / "b")
    assert scan(tmp_path).class_names == ["a", "b"]


def test_an_empty_class_is_named_and_gets_no_number(tmp_path):
    make(tmp_path, "a/1.png", "c/1.png", "d/notes.txt")
    (tmp_path / "b").mkdir()
    folder = scan(tmp_path)
    assert folder.class_names == ["a", "c"]
    assert folder.empty_classes == ["b", "d"]


def test_a_linked_class_folder_is_followed(tmp_path):
    make(tmp_path / "elsewhere", "1.png")
    make(tmp_path / "images", "a/1.png")
    (tmp_path / "images" / "b").symlink_to(tmp_path / "elsewhere")
    assert pairs(scan(tmp_path / "images")) == [("a/1.png", 0), ("b/1.png", 1)]


def test_links_to_nothing_are_named(tmp_path):
    make(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "c").symlink_to("nowhere")
    (tmp_path / "a/2.png").symlink_to("nowhere")
    folder = scan(tmp_path)
    assert folder.notes == ["1 of the stray files are links to nothing, such as c"]
    assert ("a/2.png", 0) in pairs(folder)  # a bad image


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_a_link_up_the_tree_brings_no_image_twice(tmp_path, target):
    root = make(tmp_path / "images", "train/a/1.png", "train/b/1.png", "train/b/deep/2.png")
    (root / "train" / "b" / "up").symlink_to(target)
    folder = scan(root)
    assert pairs(folder) == [("train/a/1.png", 0), ("train/b/1.png", 1), ("train/b/deep/2.png", 1)]


@pytest.mark.parametrize("where", ["loop", "a/loop", "a/loop.png"])
def test_a_link_to_itself_does_not_stop_the_scan(tmp_path, where):
    make(tmp_path, "a/1.png")
    (tmp_path / where).symlink_to(Path(where).name)
    assert ("a/1.png", 0) in pairs(scan(tmp_path))


def test_names_that_are_not_utf8_survive(tmp_path):
    make(tmp_path, "a/1.png")
    raw = os.fsencode(tmp_path) + b"/a/\xff\xfe.png"
    os.close(os.open(raw, os.O_CREAT))
    paths = [os.fsencode(path) for path, _ in pairs(scan(tmp_path))]
    assert paths == [b"a/1.png", b"a/\xff\xfe.png"]


# What is refused


def refusal(root: Path, val_fraction: float = 0) -> str:
    with pytest.raises(DataError) as caught:
        with_val(scan(root), val_fraction, 0)
    assert str(root) in str(caught.value)
    return str(caught.value)


def test_a_class_that_only_val_has_is_refused_by_name(tmp_path):
    message = refusal(make(tmp_path, "train/ant/1.png", "val/ant/1.png", "val/zebra/1.png"))
    assert "'zebra'" in message and "train has class 'ant'" in message


def test_missing_folders_and_files_are_refused(tmp_path):
    assert "found nothing" in refusal(tmp_path / "images.zip")
    make(tmp_path, "images.zip")
    assert "found a file" in refusal(tmp_path / "images.zip")


@pytest.mark.parametrize("files", [[], ["a/notes.txt"], [".hidden/1.png"]])
def test_a_folder_without_images_is_refused(tmp_path, files):
    assert "holds no images" in refusal(make(tmp_path, *files))


def test_a_flat_train_beside_val_with_classes_is_refused(tmp_path):
    assert "same layout" in refusal(make(tmp_path, "train/1.png", "val/a/1.png"))


def test_a_fraction_is_refused_where_val_is_there(tmp_path):
    message = refusal(make(tmp_path, "train/a/1.png", "test/a/1.png"), val_fraction=0.1)
    assert "(test/)" in message and "--val-fraction" in message
