"""Tables that name images without their suffix, or lie beside the folder of the images, as Kaggle's do.

Covers: the usual names of columns; the one file of a name; names that are missing or mean two files; the
folder of the images; what is said of labels in another column, and of a table beside unlabelled images.
Files are empty where only their names matter.
"""

import re
import shlex
from functools import partial
from pathlib import Path

import pytest
from command_line import run_rela
from empty_files import make
from opened import open_as, paths_and_labels
from pictures import save_tree

from rela.errors import ChoiceError, DataError
from rela.sources.image_file import BadImageError
from rela.sources.image_folder import scan

opened, found = partial(open_as, "csv"), paths_and_labels


def table(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_name_without_a_suffix_is_the_one_file_of_that_name(tmp_path: Path):
    make(tmp_path, "a.jpg", "a.txt", "b.PNG", "x/1.2.840.webp", "._a.png", "plain")
    names = ["a", "b", "x/1.2.840", "b.PNG.jpg", "plain"]
    rows = "".join(f"{name},{number % 2}\n" for number, name in enumerate(names))
    source = opened(table(tmp_path / "list.csv", f"id,label\n{rows}"))
    assert found(source) == [
        ("a.jpg", 0), ("b.PNG", 1), ("x/1.2.840.webp", 0), ("b.PNG.jpg", 1), ("plain", 0),
    ]  # fmt: skip
    assert source.notes == []


@pytest.mark.parametrize("header", ["id,label", "image_id,Label", "filename,label", "Image,label"])
def test_usual_names_of_columns(tmp_path: Path, header: str):
    make(tmp_path, "7.jpg", "8.jpg")
    source = opened(table(tmp_path / "list.csv", f"{header}\n7,cat\n8,dog\n"))
    assert found(source) == [("7.jpg", 0), ("8.jpg", 1)] and source.class_names == ["cat", "dog"]


def test_the_better_column_comes_first(tmp_path: Path):
    make(tmp_path, "7.jpg")
    source = opened(table(tmp_path / "list.csv", "id,file_name,label\n1,7.jpg,a\n"))
    assert found(source) == [("7.jpg", 0)]


def test_two_files_of_a_name_are_refused(tmp_path: Path):
    make(tmp_path, "7.jpg", "7.png", "8.jpg")
    path = table(tmp_path / "list.csv", "id,label\n8,a\n7,b\n")
    with pytest.raises(
        DataError, match=r"line 3: 7 is 7\.jpg and 7\.png in .*; give it the suffix"
    ):
        opened(path)
    make(tmp_path, "9.jpg")
    with pytest.raises(DataError, match=r"line 3: 9\.jpg is already in line 2"):
        opened(table(path, "id,label\n9,a\n9.jpg,b\n"))


def test_a_missing_name_is_a_bad_image(tmp_path: Path):
    save_tree(tmp_path, {"7.png": (8, 8), "8.png": (8, 8)})
    path = table(tmp_path / "list.csv", "id,label\n7,a\n8,a\nnone,b\nnone.png,b\n")
    source = opened(path)
    with pytest.raises(BadImageError, match=f"no image of that name in {tmp_path}"):
        source.splits["train"][2].read(source.root)
    said = run_rela("--workspace", tmp_path / "ws", "convert", path, exit_code=65).stderr
    assert f"  none: no image of that name in {tmp_path}" in said.splitlines()
    assert "  none.png: cannot be read: No such file or directory" in said.splitlines()


@pytest.mark.parametrize("suffix", ["", ".jpg"])
@pytest.mark.parametrize("folder", ["train", "data/train_images"])
def test_the_folder_of_the_images_is_found(tmp_path: Path, suffix: str, folder: str):
    make(tmp_path, f"{folder}/a.jpg", f"{folder}/b.jpg", "test/c.jpg", "docs/readme.md")
    source = opened(table(tmp_path / "train.csv", f"id,label\na{suffix},x\nb{suffix},y\n"))
    assert found(source) == [(f"{folder}/a.jpg", 0), (f"{folder}/b.jpg", 1)]
    assert source.notes == [f"the images are in {tmp_path / folder}"]


def test_of_several_folders_that_named_as_the_table_is_meant_or_none(tmp_path: Path):
    make(tmp_path, "train/1.jpg", "test/1.jpg", "it's/1.jpg")
    source = opened(table(tmp_path / "train.csv", "id,label\n1,x\n"))
    assert found(source) == [("train/1.jpg", 0)]
    with pytest.raises(ChoiceError, match="3 folders hold images of these names") as caught:
        opened(table(tmp_path / "labels.csv", "id,label\n1,x\n"))
    commands = [shlex.split(command) for command in re.findall("`(.*?)`", str(caught.value))]
    roots = [words[words.index("--image-root") + 1] for words in commands]
    assert roots == [str(tmp_path / name) for name in ("it's", "test", "train")]
    source = opened(tmp_path / "labels.csv", image_root=Path(roots[0]))
    assert found(source) == [("1.jpg", 0)]


def test_images_in_parts_are_found(tmp_path: Path):
    make(tmp_path, *(f"part_{i % 3}/{i}.jpg" for i in range(300)), "other/x.jpg")
    text = "image_id,dx\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(300))
    path = table(tmp_path / "metadata_all.csv", text)
    source = opened(path, label_column="dx")
    assert found(source) == [(f"part_{i % 3}/{i}.jpg", i % 2) for i in range(300)]
    assert source.notes == [
        "the images are in " + ", ".join(f"{tmp_path}/part_{i}" for i in range(3))
    ]
    path = path.rename(tmp_path / "HAM10000_metadata.csv")
    make(tmp_path, "part_1/0.jpg")  # now 0 is ambiguous
    with pytest.raises(ChoiceError, match="3 folders hold images"):
        opened(path, label_column="dx")
    (tmp_path / "other/x.jpg").unlink()
    assert any("HAM10000_metadata.csv may list" in note for note in scan(tmp_path).notes)


def test_labels_in_another_column_are_pointed_out(tmp_path: Path):
    make(tmp_path, "1.jpg")
    path = table(tmp_path / "labels.csv", "id,breed\n1,beagle\n")
    (note,) = opened(path).notes
    assert "no column 'label', only breed" in note and "--label-column breed" in note
    (note,) = opened(table(tmp_path / "whales.csv", "Image,Id\n1.jpg,w_1\n")).notes
    assert "only Id;" in note
    source = opened(path, label_column="breed")
    assert source.class_names == ["beagle"] and source.notes == []


def test_a_table_beside_unlabelled_images_is_pointed_out(tmp_path: Path):
    root = tmp_path / "my dogs"
    make(root, "train/1.jpg", "train/2.jpg", "test/3.jpg")
    table(root / "train.csv", "id,label\n1,a\n2,b\n")
    table(root / "notes.csv", "date,text\n1,a\n")
    table(root / "sample_submission.csv", "id,label\n3,a\n")
    note = next(note for note in scan(root).notes if "may list" in note)
    command = shlex.split(re.findall("`(.*)`", note)[0])
    assert command == ["rela", "convert", str(root / "train.csv")]
    assert opened(Path(command[2])).class_names == ["a", "b"]
    assert any("train.csv may list" in note for note in scan(root / "train").notes)
    make(root, "cat/1.jpg")
    (root / "train.csv").unlink()
    assert not any("may list" in note for note in scan(root / "cat").notes)
