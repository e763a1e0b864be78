"""What folders mean: the layouts that people have, as they were downloaded or made.

Covers: names of splits; folders one level too high; Tiny-ImageNet, ILSVRC's validation images with every
published list of labels, Kaggle's flat test, ImageFolder with metadata, images/ beside labels/; what is left
out, and said; what systems leave; what is ambiguous, and whether the commands for each reading work.
"""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import run_rela
from opened import paths_and_labels as pairs
from pictures import save_tree

from rela.errors import ChoiceError, DataError, UnsafeError
from rela.sources import open_source
from rela.sources.image_folder import scan
from rela.sources.source import ImageSource, SourceOptions
from rela.sources.splits.names import split_of


def make(root: Path, *paths: str, **texts: str) -> Path:
    for path in (*paths, *texts):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(texts.get(path, ""))
    return root


def names(source: ImageSource, split: str = "train") -> dict[str, str]:
    """Path → class."""
    classes = [*source.class_names, "none"]
    return {path: classes[label] for path, label in pairs(source, split)}


@pytest.mark.parametrize(
    ("split", "spellings"),
    [
        (
            "train",
            ["Train", "TRAINING", "train_set", "trainset", "train2017", "ILSVRC2012_img_train"],
        ),
        ("val", ["Val", "val_images", "val2017"]),
        ("valid", ["valid", "Valid"]),
        ("validation", ["validation", "validation_set"]),
        ("dev", ["dev", "dev_set"]),
        ("eval", ["eval"]),
        ("evaluation", ["Evaluation"]),
        ("holdout", ["holdout", "hold-out", "Hold Out", "holdout_set"]),
        ("heldout", ["held_out"]),
        ("test", ["test", "Test-Set"]),
        ("testing", ["testing"]),
        ("tst", ["tst"]),
        (
            "train",
            ["trn", "traindata", "TrainImages", "imagenet-train", "dataset_train", " train "],
        ),
        ("train", ["training set", "train-jpg", "Train Full", "trainData"]),
        (
            "",
            ["cat", "test tube", "valley", "training shoes", "train_val", "", "trains", "data set"],
        ),
    ],
)
def test_names_of_splits(split: str, spellings: list[str]):
    assert {name: split_of(name) for name in spellings} == dict.fromkeys(spellings, split)


# Layouts: the files, and the classes of train and val

CATS = {"train/cat/1.png": "cat", "train/dog/1.png": "dog"}
LAYOUTS: dict[str, tuple[dict[str, str], dict[str, str], list[str]]] = {
    **{
        f"{train}, {val}": (
            {f"{train}/cat/1.png": "cat", f"{train}/dog/1.png": "dog"}, {f"{val}/dog/2.png": "dog"}, [],
        )
        for train, val in (("training", "validation"), ("Train", "Val"), ("train", "dev"), ("TRAIN", "Test"))
    },
    "one level too high": ({f"data/{k}": v for k, v in CATS.items()}, {"data/val/cat/1.png": "cat"}, []),
    "classes below one folder": ({"x/y/cat/1.png": "cat", "x/y/dog/1.png": "dog"}, {}, ["x/notes.txt"]),
    "a split in itself": ({"train/train/cat/1.png": "cat", "train/train/dog/1.png": "dog"}, {}, []),
    "a split in itself, of one class": (
        {"seg_train/seg_train/cat/1.png": "cat", "seg_train/seg_train/dog/1.png": "dog"},
        {"seg_test/seg_test/cat/1.png": "cat"}, ["seg_pred/1.png"],
    ),
    "splits in classes": ({"cat/train/1.png": "cat", "dog/test/1.png": "dog"}, {}, []),
    "one class": ({"cat/1.png": "cat", "cat/2.png": "cat"}, {}, []),
    "one class of images/": ({"cat/images/1.png": "cat"}, {}, []),
    "splits in a split": ({f"train/{k}": v for k, v in CATS.items()}, {"train/val/cat/1.png": "cat"}, []),
    "images in train": (
        {"train/images/1.png": "none"}, {"valid/images/2.png": "none"}, ["train/labels/1.txt"],
    ),
    "images beside labels": (
        {"images/train/1.png": "none"}, {"images/val/2.png": "none"}, ["labels/train/1.txt"],
    ),
    "images beside masks": ({"images/1.png": "none", "images/2.png": "none"}, {}, ["masks/1.png"]),
    "images alone": ({"images/1.png": "none"}, {}, []),
    "classes beside a test of theirs": (
        {"cat/1.png": "cat", "dog/1.png": "dog"}, {"test/cat/1.png": "cat"}, [],
    ),
    "val first": (CATS, {"val/cat/1.png": "cat"}, ["test/cat/1.png"]),
    "test has the labels": (CATS, {"test/cat/1.png": "cat"}, ["val/1.png"]),
    "a flat test": (CATS, {}, ["test/1.png", "test/2.png"]),
    "flat, with a test": ({"1.png": "none", "2.png": "none"}, {"test/1.png": "none"}, []),
    "only test": ({"test/cat/1.png": "cat", "test/dog/1.png": "dog"}, {}, []),
    "extra images": (CATS, {"val/cat/1.png": "cat"}, ["extra/1.png"]),
    "loose images": (CATS, {}, ["train/loose.png"]),
    **{
        f"{train} beside {val}": (
            {f"{train}/cat/1.png": "cat", f"{train}/dog/1.png": "dog"}, {f"{val}/dog/2.png": "dog"}, [],
        )
        for train, val in (
            ("trn", "tst"), ("birds_train", "birds_test"), ("train", "holdout"), (" Train", "VAL "),
            ("images_training_rev1", "images_test_rev1"), ("data/train/train", "data/val/val"),
        )
    },
    "masks in classes": (
        {"sick/images/1.png": "sick", "well/images/2.png": "well"}, {}, ["sick/masks/1.png"],
    ),
    "VOC": ({"JPEGImages/1.png": "none"}, {}, ["SegmentationClass/1.png", "Annotations/1.xml"]),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str):
    train, val, others = LAYOUTS[layout]
    source = scan(make(tmp_path, *train, *val, *others))
    assert names(source) == train
    assert (names(source, "val") if val else source.splits.get("val", {})) == val
    assert source.class_names == sorted(set(train.values()) - {"none"})
    said = " ".join([*source.notes, *source.stray_files])
    for path in others:  # an image that is not used is never left out without a word
        assert not path.endswith(".png") or path in said or f"{path.split('/')[0]}/" in said


def test_what_is_left_out_is_said_with_a_command_for_it(tmp_path: Path):
    root = make(tmp_path / "my data", *CATS, "val/cat/1.png", "test/1.png", "test/2.png")
    (note,) = scan(root).notes
    assert "left out 2 images" in note and "test" in note
    command = re.findall("`(.*)`", note)[0]
    assert shlex.split(command) == ["rela", "convert", f"{root}/test", "--name", "my-data-test"]


def test_a_split_by_itself_names_the_folder_above(tmp_path: Path):
    make(tmp_path / "d", *CATS, "val/cat/1.png")
    (note,) = scan(tmp_path / "d/train").notes
    assert f"`rela convert {tmp_path}/d`" in note and "val/" in note
    assert scan(tmp_path / "d").notes == []


# Labels that lie beside images


def tiny_imagenet(root: Path, num_val: int = 4) -> Path:
    wnids = ["n01443537", "n01629819"]
    rows = [f"val_{i}.JPEG\t{wnids[i % 2]}\t0\t0\t9\t9\n" for i in range(num_val)]
    return make(
        root,
        *(f"train/{c}/images/{c}_{i}.JPEG" for c in wnids for i in range(2)),
        *(f"train/{c}/{c}_boxes.txt" for c in wnids),
        *(f"val/images/val_{i}.JPEG" for i in range(num_val)),
        "test/images/test_0.JPEG",
        **{"val/val_annotations.txt": "".join(rows), "wnids.txt": "\n".join(wnids)},
    )


@pytest.mark.parametrize("above", ["", "downloads/"])
def test_tiny_imagenet_as_downloaded(tmp_path: Path, above: str):
    tiny_imagenet(tmp_path / "tiny" / above, 2)
    source = scan(tmp_path / "tiny")
    assert source.class_names == ["n01443537", "n01629819"] and len(source.splits["train"]) == 4
    assert pairs(source, "val") == [(f"{above}val/images/val_{i}.JPEG", i) for i in range(2)]
    assert any("left out 1 image" in note and "/test/" in note for note in source.notes)


SYNSETS = ["n03", "n01", "n02"]  # in the order of ILSVRC's numbers, which is not that of the names
TRUTH = [2, 3, 1, 2]  # so n01, n02, n03, n01
LISTS: dict[str, dict[str, str]] = {
    "names and synsets": {"val.txt": "".join(f"{i}.JPEG n0{k}\n" for i, k in enumerate([1, 2, 3, 1]))},
    "Kaggle's": {
        "LOC_val_solution.csv": "ImageId,PredictionString\n"
        + "".join(f"{i},n0{k} 1 2 3 4\n" for i, k in reversed([*enumerate([1, 2, 3, 1])]))
    },
    "synsets in order": {"kit/imagenet_validation_synset_labels.txt": "n01\nn02\nn03\nn01\n"},
    "numbers and a numbered list": {
        "kit/data/ILSVRC_validation_ground_truth.txt": "\n".join(map(str, TRUTH)),
        "kit/data/map_clsloc.txt": "n01 2 a_b\nn02 3 c\nn03 1 d\n",
    },
    "numbers and a list in order": {
        "kit/ground_truth.txt": "\n".join(map(str, TRUTH)), "synsets.txt": "\n".join(SYNSETS),
    },
    "names and numbers from 0": {
        "val.txt": "".join(f"{i}.JPEG {k}\n" for i, k in enumerate([0, 1, 2, 0])),
        "synset_words.txt": "n01 a\nn02 b\nn03 c, d\n",
    },
}  # fmt: skip


@pytest.mark.parametrize("case", [*LISTS, "the kit's own"])
def test_ilsvrc_validation_as_downloaded(tmp_path: Path, case: str):
    train = [f"train/{c}/1.JPEG" for c in sorted(SYNSETS)]
    root = make(tmp_path, *train, *(f"val/{i}.JPEG" for i in range(4)), **LISTS.get(case, {}))
    if case == "the kit's own":
        np, io = pytest.importorskip("numpy"), pytest.importorskip("scipy.io")
        kit = root / "ILSVRC2012_devkit_t12/data"
        make(kit, **{"ILSVRC2012_validation_ground_truth.txt": "\n".join(map(str, TRUTH))})
        rows = [(i + 1, wnid, "words", 0) for i, wnid in enumerate([*SYNSETS, "n04"])]
        kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
        io.savemat(kit / "meta.mat", {"synsets": np.array(rows, dtype=kind)})
    source = scan(root)
    assert names(source, "val") == {
        f"val/{i}.JPEG": wnid for i, wnid in enumerate(["n01", "n02", "n03", "n01"])
    }
    assert source.notes == [next(note for note in source.notes if "labels of" in note)]


@pytest.mark.parametrize(
    "lists",
    [
        {},
        {"wnids.txt": "n01\nn02\nn03\n"},  # as many classes as images
        {"truth.txt": "2\n3\n1\n"},  # no list that numbers the classes
        {"val.txt": "0.JPEG n01\n1.JPEG n02\n"},  # not all
        {"val.txt": "0.JPEG n01\n1.JPEG n02\n2.JPEG n09\n"},  # unknown
        {"val.txt": "".join(f"train/{i}.JPEG n01\n" for i in range(3))},  # of other images
        {"sample_submission.csv": "id,label\n0,n01\n1,n01\n2,n01\n"},
        {"train_labels.csv": "id,label\n0,n01\n1,n02\n2,n01\n"},
    ],
)
def test_without_a_list_of_all_its_labels_val_is_left_out(tmp_path: Path, lists: dict[str, str]):
    train = [f"train/{c}/1.JPEG" for c in sorted(SYNSETS)]
    source = scan(make(tmp_path, *train, *(f"val/{i}.JPEG" for i in range(3)), **lists))
    assert list(source.splits) == ["train"] and "left out 3 images" in source.notes[0]


def test_lists_that_disagree_are_refused(tmp_path: Path):
    lists = {"val.txt": "0.png a\n1.png b\n", "labels.txt": "0.png b\n1.png a\n"}
    root = make(tmp_path, "train/a/1.png", "train/b/1.png", "val/0.png", "val/1.png", **lists)
    with pytest.raises(ChoiceError, match=r"labels\.txt and val\.txt give different classes"):
        scan(root)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("place", ["", "train/"])
def test_image_folder_with_metadata(tmp_path: Path, form: str, place: str):
    rows = [(f"{'' if place else 'train/'}{i}.png", i % 2 + 9) for i in range(3)]
    text = "file_name,label\n" + "".join(f"{n},{c}\n" for n, c in rows)
    if form == "jsonl":
        text = "\n".join(json.dumps({"file_name": n, "label": c}) for n, c in rows)
    images = [f"train/{i}.png" for i in range(4)]
    source = scan(make(tmp_path, *images, "test/1.png", **{f"{place}metadata.{form}": text}))
    assert source.class_names == ["9", "10"]
    assert pairs(source) == [("train/0.png", 0), ("train/1.png", 1), ("train/2.png", 0)]
    assert ["left out 1 image " in note for note in source.notes] == [
        True,
        True,
    ]  # 3.png, test/1.png


def test_metadata_of_val_beside_class_folders(tmp_path: Path):
    root = make(
        tmp_path, *CATS, "val/1.png", **{"val/metadata.csv": "file_name,label\n1.png,dog\n"}
    )
    assert names(scan(root), "val") == {"val/1.png": "dog"}
    make(root, **{"val/metadata.csv": "file_name,label\n1.png,eel\n"})
    with pytest.raises(DataError, match=r"val has class 'eel', which .*train lacks"):
        scan(root)


def test_metadata_without_labels_or_files(tmp_path: Path):
    root = make(tmp_path, "1.png", **{"metadata.csv": "file_name,text\n1.png,a cat\n"})
    source = scan(root)
    assert pairs(source) == [("1.png", -1)] and "--label-column" in source.notes[0]
    assert scan(root, SourceOptions(label_column="text")).class_names == ["a cat"]
    make(root, **{"metadata.csv": "file_name,label\n1.png,a\n2.png,b\n"})
    assert pairs(scan(root)) == [("1.png", 0), ("2.png", 1)]  # 2.png is a bad image
    make(root, **{"metadata.csv": "file_name,label\n../1.png,a\n"})
    with pytest.raises(UnsafeError, match="outside"):
        scan(root)


# What systems leave


def test_what_systems_leave_is_never_a_class(tmp_path: Path):
    left = [
        "@eaDir/1.png/THUMB.jpg", "cat/@eaDir/1.png/THUMB.jpg", "#recycle/1.png", "$RECYCLE.BIN/1.png",
        "System Volume Information/1.png", "__MACOSX/cat/._1.png", ".ipynb_checkpoints/1.png",
        "cat/.ipynb_checkpoints/1-checkpoint.png", "lost+found/1.png", "cat/._1.png", "cat/Thumbs.db",
        "cat/.DS_Store", "desktop.ini",
    ]  # fmt: skip
    source = scan(make(tmp_path, "cat/1.png", "dog/1.png", *left))
    assert names(source) == {"cat/1.png": "cat", "dog/1.png": "dog"}
    assert sum(source.num_skipped.values()) == len(left) and source.num_skipped["@eaDir"] == 2
    assert source.stray_files == source.empty_classes == []


# What is ambiguous

AMBIGUOUS = [
    ["train/cat/1.png", "train/dog/1.png", "bus/1.png"],
    ["train/1.png", "val/1.png", "bus/1.png"],
    ["cat/1.png", "dog/1.png", "test/1.png"],
    ["val/cat/1.png", "test/cat/1.png", "val/dog/1.png"],
    ["Train/cat/1.png", "training/cat/1.png", "Train/dog/1.png"],
    [f"{fold}/{name}/1.png" for fold in ("fold1", "fold2") for name in ("cat", "dog")],
    ["data/train/cat/1.png", "data/val/cat/1.png", "docs/1.png"],
    [f"{split}{name}/1.png" for split in ("train", "test") for name in "AB"],
    [f"{split}_{name}/1.png" for split in ("train", "test") for name in ("cat", "dog")],
]


@pytest.mark.parametrize("files", AMBIGUOUS, ids=lambda files: files[0])
@pytest.mark.parametrize("above", ["", "it's here/", "set/data/"])
def test_ambiguous_folders_are_refused_with_commands_that_work(
    tmp_path: Path, files: list[str], above: str, rela: Callable[..., object]
):
    save_tree(tmp_path / above / "set", dict.fromkeys(files, (8, 8)))
    source = tmp_path / "set" if above.startswith("set/") else tmp_path / above / "set"
    with pytest.raises(ChoiceError) as caught:
        scan(source)
    commands = re.findall("`(.*?)`", str(caught.value))
    assert len(commands) >= 2 and "\n" not in str(caught.value)
    for number, command in enumerate(commands):
        program, *words = shlex.split(command)
        assert program == "rela"
        if not above:
            run_rela(*words, "--name", f"reading{number}", "--workers", 1)
        else:
            options = SourceOptions(layout=words[3] if len(words) > 2 else None)
            assert scan(Path(words[1]), options).splits["train"]


def test_folders_that_hold_nothing(tmp_path: Path):
    make(tmp_path / "a", *CATS, "val/readme.txt", "labels/1.txt")
    source = scan(tmp_path / "a")
    assert source.empty_classes == ["val"] and source.stray_files == [
        "labels/1.txt",
        "val/readme.txt",
    ]
    with pytest.raises(DataError, match=r"b/train holds no images"):
        scan(make(tmp_path / "b", "train/readme.txt", "val/cat/1.png", "val/dog/1.png"))
    with pytest.raises(
        DataError, match=r"holds no images, only 1 \.zip; .*`rela convert .*/d/cats\.zip`"
    ):
        scan(make(tmp_path / "d", "cats.zip"))
    inside = scan(make(tmp_path / "c", "cat/train/1.png", "dog/test/1.png"))
    assert inside.notes == ["test, train within the classes are read as one split"]


def test_classes_that_look_alike_are_named(tmp_path: Path):
    decomposed = "cafe\N{COMBINING ACUTE ACCENT}"
    names = ["Cat", "cat", "dog", "dog ", "café", decomposed, "eel"]
    root = make(tmp_path, *(f"{name}/1.png" for name in names))
    source = open_source(root, "folder", SourceOptions())
    assert source.class_names == sorted(names)  # none is merged
    (note,) = source.notes
    assert "'Cat', 'cat'" in note and "'dog', 'dog '" in note and "eel" not in note


def test_what_a_folder_without_images_holds_is_said(tmp_path: Path):
    def said(*paths: str) -> str:
        root = make(tmp_path / paths[0].replace("/", "-"), *paths)
        with pytest.raises(DataError, match="holds no images") as caught:
            scan(root)
        return str(caught.value)

    assert "only 2 .dcm, 1 no suffix" in (found := said("a/1.dcm", "a/2.dcm", "a/3"))
    assert "save them as PNG" in found
    assert "`ffmpeg -i VIDEO" in said("a/1.mp4")
    assert "unpack 1.7z with `7z x`" in said("1.7z")
    assert "only 1 .tar.zst" in said("1.tar.zst")
    assert ".nii.gz: rela does not read them" in said("1.nii.gz")


def test_images_without_a_suffix_are_named(tmp_path: Path):
    root = make(tmp_path, *CATS, "train/cat/notes", "train/cat/2.txt", "train/cat/4.jpg.crdownload")
    (root / "train/cat/3.jpg_large").write_bytes(b"\xff\xd8\xff\xe0")
    (root / "train/cat/2.txt").write_bytes(b"\xff\xd8\xff\xe0")
    (note,) = scan(root).notes
    assert "1 of the stray files begin as images, such as train/cat/3.jpg_large" in note


def test_layout_can_be_chosen(tmp_path: Path):
    make(tmp_path, "train/cat/1.png", "train/dog/1.png", "bus/1.png")
    classes = scan(tmp_path, SourceOptions(layout="classes"))
    assert names(classes)["train/cat/1.png"] == "train"
    assert scan(tmp_path, SourceOptions(layout="splits")).class_names == ["cat", "dog"]


def test_train_without_labels_beside_val_with_labels_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="give both splits the same layout"):
        scan(make(tmp_path, "train/1.png", "val/a/1.png"))
