"""ImageNet as downloaded, in small: tars of classes, the tar of these, validation images and the kit.

Covers: labels are the names of the tars, and bytes those that were put in; validation labels from the kit;
what is left out is said; damage inside; other tars stay what they are.
"""

import io
import tarfile
from functools import partial
from pathlib import Path

import pytest
from command_line import run_rela
from opened import open_as, paths_and_labels
from pictures import png

from rela.errors import DataError
from rela.sources import find_kind
from rela.sources.source import ImageSource

opened = partial(open_as, "imagenet")
SYNSETS = ["n01440764", "n01443537", "n02085620"]
WHOLE = "ILSVRC2012_img_train.tar"


def tar_of(contents: dict[str, bytes], compression: str = "") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{compression}") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


IMAGES = {
    synset: {f"{synset}_{i}.JPEG": png(10 * number + i, 8, 8) for i in range(3)}
    for number, synset in enumerate(SYNSETS)
}
CLASS_TARS = {f"{synset}.tar": tar_of(images) for synset, images in IMAGES.items()}


def save(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def assert_train_is_right(source: ImageSource) -> None:
    assert source.class_names == SYNSETS
    expected = [
        (f"train/{synset}/{name}", SYNSETS.index(synset), content)
        for synset, images in IMAGES.items()
        for name, content in images.items()
    ]
    found = [(s.path, s.label, s.read(source.root)) for s in source.splits["train"]]
    assert found == expected


@pytest.mark.parametrize("form", ["a folder of tars", "a tar of tars", "in a folder"])
def test_classes_are_the_names_of_tars(tmp_path: Path, form: str):
    path = save(
        tmp_path / "set", CLASS_TARS if form == "a folder of tars" else {WHOLE: tar_of(CLASS_TARS)}
    )
    source = opened(path / WHOLE if form == "a tar of tars" else path)
    assert list(source.splits) == ["train"]
    assert_train_is_right(source)


def test_splits_of_class_tars(tmp_path: Path):
    save(tmp_path / "train", CLASS_TARS)
    name = f"{SYNSETS[1]}.tar"
    save(tmp_path / "val", {name: CLASS_TARS[name]})
    source = opened(tmp_path)
    assert_train_is_right(source)
    assert [path for path, label in paths_and_labels(source, "val") if label == 1] == [
        f"val/{SYNSETS[1]}/{image}" for image in IMAGES[SYNSETS[1]]
    ]


def test_images_beside_tars_are_not_lost(tmp_path: Path):
    save(tmp_path, CLASS_TARS)
    save(tmp_path / SYNSETS[0], {"1.JPEG": png(0, 8, 8)})
    source = open_as("folder", tmp_path)
    assert len(source.splits["train"]) == 1 and len(source.stray_files) == len(CLASS_TARS)


def test_it_is_converted_in_place(tmp_path: Path):
    save(tmp_path / "set", {WHOLE: tar_of(CLASS_TARS)})
    words = ("--workspace", tmp_path / "ws", "convert", tmp_path / "set" / WHOLE, "--workers", 1)
    said = run_rela(*words).stdout
    assert "train       6 images in 3 classes" in said and "val         3 images in 3" in said
    assert [path.name for path in (tmp_path / "set").iterdir()] == [WHOLE]


def test_validation_images_have_the_labels_of_the_kit(tmp_path: Path):
    np, scipy_io = pytest.importorskip("numpy"), pytest.importorskip("scipy.io")
    order = [SYNSETS[2], SYNSETS[0], SYNSETS[1]]  # by the kit's own numbers, from 1
    rows = [(i + 1, synset) for i, synset in enumerate(order)]
    meta = io.BytesIO()
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O")]
    scipy_io.savemat(meta, {"synsets": np.array(rows, dtype=kind)})
    kit = {
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": b"3\n1\n2\n1\n",
    }
    val = {f"ILSVRC2012_val_{i + 1:08}.JPEG": png(50 + i, 8, 8) for i in range(4)}
    source = opened(
        save(
            tmp_path / "imagenet",
            {
                WHOLE: tar_of(CLASS_TARS),
                "ILSVRC2012_img_val.tar": tar_of(val),
                "ILSVRC2012_devkit_t12.tar.gz": tar_of(kit, "gz"),
                "ILSVRC2012_bbox_train_v2.tar.gz": tar_of({"x.xml": b""}, "gz"),
            },
        )
    )
    assert_train_is_right(source)
    labels = [order[number - 1] for number in (3, 1, 2, 1)]
    assert paths_and_labels(source, "val") == [
        (f"val/{name}", SYNSETS.index(label)) for name, label in zip(val, labels, strict=True)
    ]
    assert [s.read(source.root) for s in source.splits["val"]] == list(val.values())
    assert "ILSVRC2012_bbox_train_v2.tar.gz" in source.stray_files


def test_validation_images_without_labels_are_left_out(tmp_path: Path):
    val = {"ILSVRC2012_val_00000001.JPEG": png(50, 8, 8)}
    files = {WHOLE: tar_of(CLASS_TARS), "ILSVRC2012_img_val.tar": tar_of(val)}
    source = opened(save(tmp_path, files))
    assert list(source.splits) == ["train"] and "left out 1 image" in source.notes[0]


def test_a_damaged_tar_inside_is_named(tmp_path: Path):
    tars = {**CLASS_TARS, f"{SYNSETS[1]}.tar": CLASS_TARS[f"{SYNSETS[1]}.tar"][:700]}
    path = save(tmp_path, {WHOLE: tar_of(tars)}) / WHOLE
    with pytest.raises(DataError, match=rf"{WHOLE}/{SYNSETS[1]}\.tar is"):
        opened(path)


def test_other_tars_stay_what_they_are(tmp_path: Path):
    shard = tar_of({"1.png": png(0, 8, 8), "1.cls": b"0"})
    save(tmp_path / "shards", {"train-000.tar": shard})
    save(tmp_path / "tars", {"all.tar": tar_of({"cats.tar": shard})})
    assert find_kind(tmp_path / "shards") == "webdataset"
    assert find_kind(tmp_path / "tars") == "webdataset"
    assert find_kind(save(tmp_path / "empty", {})) == "folder"
    with pytest.raises(DataError, match=rf"a single image; .* `rela convert {tmp_path}`"):
        find_kind(save(tmp_path, {"1.png": b""}) / "1.png")
    save(tmp_path, {"a b.tar.zst": b"", "x.RAR": b""})
    with pytest.raises(DataError, match=r"unpack it with `zstd -d '.*/a b\.tar\.zst'`"):
        find_kind(tmp_path / "a b.tar.zst")
    with pytest.raises(DataError, match=r"unpack it with `unrar x .*/x\.RAR`"):
        find_kind(tmp_path / "x.RAR")


def test_tars_of_classes_by_other_names_are_pointed_out(tmp_path: Path):
    images = {name: tar_of({f"{name}1.png": png(0, 8, 8)}) for name in ("cat.tar", "dog.tar")}
    (note,) = open_as("webdataset", save(tmp_path, images)).notes
    assert 'tar -xf "$f" -C "${f%.tar}"' in note


def test_tars_of_train_beside_unpacked_val_have_their_command(tmp_path: Path):
    save(tmp_path / "train", CLASS_TARS)
    save(tmp_path / "val" / SYNSETS[0], {"1.JPEG": png(0, 8, 8)})
    with pytest.raises(DataError, match=rf"ImageNet's tars: `rela convert {tmp_path}/train`"):
        open_as("folder", tmp_path)
