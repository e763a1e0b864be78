"""CSVs and TSVs of paths and labels, and what every kind of source has in common on the command line.

Covers: headers, splits, labels, order, odd rows; paths that lead out, and --image-root; missing files
as bad images; which kind a source is of, in recipes and dry runs too; what makes no other data set.
"""

import csv
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import read_json, run_rela
from opened import open_as, paths_and_labels
from pictures import save_tree

from rela.errors import ChoiceError, DataError, RelaError, UnsafeError
from rela.sources import KINDS, default_name, find_kind, open_source
from rela.sources.source import SourceOptions


def write(path: Path, *rows: list[Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file, **options).writerows(rows)
    return path


opened, found = partial(open_as, "csv"), paths_and_labels


def images(root: Path, *names: str) -> None:
    save_tree(root, dict.fromkeys(names, (12, 12)))


def test_rows_are_images_in_their_order(tmp_path: Path):
    path = write(
        tmp_path / "list.csv",
        ["path", "label", "split"],
        ["b/2.png", "dog", "train"],
        ["a, b.png", "cat", ""],
        ["./b/1.png", "dog", "train"],
        ["v.png", " cat ", "val"],
    )
    with pytest.raises(DataError, match="expected a train split, found a, b"):
        opened(write(tmp_path / "only.csv", ["path", "split"], ["1.png", "a"], ["2.png", "b"]))
    source = opened(path)
    assert source.class_names == ["cat", "dog"] and source.root == tmp_path
    assert found(source) == [("b/2.png", 1), ("a, b.png", 0), ("b/1.png", 1)]
    assert found(source, "val") == [("v.png", 0)]


@pytest.mark.parametrize(
    ("rows", "names", "labels"),
    [
        ([["path", "label"], ["1.png", "10"], ["2.png", "9"]], ["9", "10"], [1, 0]),
        ([["path", "label"], ["1.png", "n01"], ["2.png", "9"]], ["9", "n01"], [1, 0]),
        ([["label", "x", "path"], ["b", "", "1.png"], ["a", "", "2.png"]], ["a", "b"], [1, 0]),
        ([["path"], ["1.png"], ["2.png"]], [], [-1, -1]),
        ([["path", "label"], ["1.png", ""], ["2.png", " "]], [], [-1, -1]),
        ([["path", "class"], ["1.png", "a"], ["2.png", "b"]], [], [-1, -1]),
    ],
)
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_labels_are_optional_numbers_or_text(
    tmp_path: Path, rows: list[list[str]], names: list[str], labels: list[int], delimiter: str
):
    path = tmp_path / ("list.csv" if delimiter == "," else "list.tsv")
    source = opened(write(path, *rows, delimiter=delimiter))
    assert source.class_names == names
    assert found(source) == [("1.png", labels[0]), ("2.png", labels[1])]


def test_columns_can_be_named(tmp_path: Path):
    path = write(tmp_path / "list.csv", ["file", "class"], ["1.png", "a"])
    words = "begins with file, class; expected a header with a column 'path'"
    with pytest.raises(ChoiceError, match=words):
        opened(path)
    source = opened(path, image_column="file", label_column="class")
    assert (source.class_names, found(source)) == (["a"], [("1.png", 0)])
    with pytest.raises(ChoiceError, match="--label-column"):
        opened(path, image_column="file", label_column="species")


def test_spreadsheets_and_windows(tmp_path: Path):
    (tmp_path / "list.csv").write_bytes(
        b"\xef\xbb\xbfpath;label\r\nx\\1.png;a, b\r\ny\\2.png;c\r\n"
    )
    (tmp_path / "y\\2.png").touch()  # a name that is possible here
    source = opened(tmp_path / "list.csv")
    assert found(source) == [("x/1.png", 0), ("y\\2.png", 1)]
    assert source.class_names == ["a, b", "c"]
    (tmp_path / "out.csv").write_bytes(b"path\n..\\1.png\n")
    with pytest.raises(UnsafeError):
        opened(tmp_path / "out.csv")


def test_json_lines(tmp_path: Path):
    lines = [{"file_name": "1.png", "label": 3}, {"label": 1, "file_name": "2.png", "box": [1]}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    source = opened(tmp_path / "metadata.jsonl")
    assert (source.class_names, found(source)) == (["1", "3"], [("1.png", 1), ("2.png", 0)])
    for text in ("{", "[1]", "[" * 100_000):
        (tmp_path / "bad.jsonl").write_text(text)
        with pytest.raises(DataError, match=r"bad\.jsonl, line 1 is not"):
            opened(tmp_path / "bad.jsonl")


def test_byte_order_marks_and_non_utf8_names_are_read(tmp_path: Path):
    (tmp_path / "list.csv").write_bytes(b"\xef\xbb\xbfpath,label\r\n\xff.png,a\r\n\r\n")
    assert [os.fsencode(p) for p, _ in found(opened(tmp_path / "list.csv"))] == [b"\xff.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with nothing; expected a header"),
        ("path,label\n", "lists no images"),
        ("path,label\n1.png\n", "line 2: found 1 cells, expected 2 as in the header"),
        ("path,label\n1.png,a,b\n", "line 2: found 3 cells"),
        ("path,label\n,a\n", "line 2: found 2 cells"),
        ("path,label\n1.png,a\nx/../1.png,b\n", "line 3: 1.png is already in line 2"),
        ("path,label\n1.png,1\n2.png,nan\n", "1 of 2 images have no label, such as 2.png"),
        ("path,label\n1.png,a\n2.png,\n", "1 of 2 images have no label, such as 2.png"),
        ("path,label,split\n1.png,a,train\n2.png,b,val\n", "val has class 'b', which train lacks"),
        ('path,label\n"' + "x" * 200_000 + '",a\n', "is not a table"),
    ],
)
def test_odd_tables_are_refused_in_one_line(tmp_path: Path, text: str, message: str):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises((DataError, ChoiceError), match=message) as caught:
        opened(tmp_path / "list.csv")
    assert "list.csv" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../1.png", "a/../../1.png", "/etc/1.png", "..", "a\0.png"])
def test_paths_outside_the_folder_are_refused(tmp_path: Path, name: str):
    path = write(tmp_path / "in" / "list.csv", ["path"], ["ok.png"], [name])
    with pytest.raises(UnsafeError, match=r"line 3: .*is outside .*--image-root"):
        opened(path)
    run_rela("--workspace", tmp_path / "ws", "convert", path, exit_code=77)


def test_absolute_paths_lie_in_the_image_root(tmp_path: Path):
    images(tmp_path / "images", "a/1.png", "b/2.png")
    rows = [[tmp_path / "images/a/1.png", "a"], [tmp_path / "images/b/2.png", "b"]]
    path = write(tmp_path / "lists" / "list.csv", ["path", "label"], *rows)
    source = opened(path, image_root=tmp_path / "images")
    assert found(source) == [("a/1.png", 0), ("b/2.png", 1)]
    words = ("--workspace", tmp_path / "ws", "convert", path, "--workers", 1)
    run_rela(*words, exit_code=77)
    assert "2 classes" in run_rela(*words, "--image-root", tmp_path / "images").stdout


def test_a_list_equals_its_folder(tmp_path: Path):
    """The same betons and the same fingerprint, and what is said about bad images."""
    names = ["ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png"]
    images(tmp_path / "data", *names)
    rows = [[name, name[:3]] for name in names]
    path = write(tmp_path / "data" / "list.csv", ["path", "label"], *rows)
    for source in (tmp_path / "data", path):
        run_rela("--workspace", tmp_path / "ws", "convert", source, "--val-fraction", 0)
    folder, listed = (tmp_path / "ws/datasets" / name for name in ("data", "list"))
    for name in ("train.beton", "train.csv"):
        assert (folder / name).read_bytes() == (listed / name).read_bytes()
    manifests = [read_json(at / "manifest.json") for at in (folder, listed)]
    for key in ("fingerprint", "parameters"):
        assert manifests[0][key] == manifests[1][key]
    # other names of the columns do not make another data set
    words = ("--workspace", tmp_path / "ws", "convert", path, "--val-fraction", 0)
    assert "already exists" in run_rela(*words, "--image-root", tmp_path / "data").stdout

    (tmp_path / "data" / "bee" / "0.png").unlink()
    (tmp_path / "data" / "ant" / "1.png").write_bytes(b"")
    words = (*words, "--name", "rest")
    lines = run_rela(*words, exit_code=65).output.splitlines()
    assert lines[1:] == [
        "  ant/1.png: empty file (0 bytes)",
        "  bee/0.png: cannot be read: No such file or directory",
    ]
    assert "train       2 images" in run_rela(*words, "--on-bad-image", "skip").output


# Which kind it is


def test_unknown_sources_are_refused_with_the_known_kinds(tmp_path: Path):
    (tmp_path / "set.bin").write_bytes(b"x")
    for path, was in ((tmp_path / "set.bin", "a file"), (tmp_path / "nowhere", "nothing")):
        words = ("--workspace", tmp_path / "ws", "convert", path)
        (line,) = run_rela(*words, exit_code=65).output.splitlines()
        assert f"found {was}, expected a folder of class folders" in line
        assert all(kind in line for kind in ("CSV", "WebDataset", "Hugging Face", "CIFAR"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_of_another_format_is_refused_in_one_line(tmp_path: Path, kind: str):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("none")
    with pytest.raises(RelaError) as caught:
        open_source(tmp_path / "a", kind, SourceOptions())
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_loop_of_links_does_not_stop_the_search(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "self").symlink_to("self")
    assert find_kind(tmp_path) == "folder"
    images(tmp_path, "b/c/d/1.png")
    assert find_kind(tmp_path) == "folder"


def test_data_sets_are_called_after_their_source(tmp_path: Path):
    for name, expected in (
        ("cifar-10-python.tar.gz", "cifar-10-python"), ("a.b.csv", "a.b"), ("x.tar", "x"), ("y", "y"),
    ):  # fmt: skip
        (tmp_path / name).touch()
        assert default_name(tmp_path / name) == expected
    assert default_name(tmp_path / "v1.0.tar" / ".." / "*" / "x-{0..3}.tar") == tmp_path.name


def test_recipes_and_dry_runs_take_lists(tmp_path: Path):
    images(tmp_path / "data", *(f"{i}.png" for i in range(4)))
    write(tmp_path / "list.csv", ["file", "label"], *([f"{i}.png", i % 2] for i in range(4)))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[[convert]]\nsource = "list.csv"\nimage_root = "data"\nimage_column = "file"\nworkers = 1\n'
    )
    words = ("--workspace", tmp_path / "ws", "run", recipe, "--json")
    planned = read_json(run_rela(*words, "--dry-run"))["jobs"]
    assert [(job["what"], job["state"]) for job in planned] == [("list", "to do")]
    run_rela(*words)
    planned = read_json(run_rela(*words, "--dry-run"))["jobs"]
    assert [job["state"] for job in planned] == ["there"]
