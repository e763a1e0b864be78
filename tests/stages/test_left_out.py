"""What a conversion leaves out, in words: bad images and the command that skips them.

The commands are taken from the messages and run.
"""

import re
import shlex
from pathlib import Path

import pytest
from command_line import Rela, read_json
from pictures import png

from rela.stages.left_out import without_numbers


def write(root: Path, bad: str, good: str) -> Path:
    """Empty files and pictures with these names, separated by spaces."""
    for number, path in enumerate([*bad.split(), *good.split()]):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"" if path in bad.split() else png(number, 8, 8))
    return root


def command_in(text: str) -> list[str]:
    return shlex.split(re.findall("`rela (.*?)`", text)[0])


@pytest.mark.parametrize(
    ("bad", "good", "options"),
    [
        ("train/a/1.png", "train/a/2.png train/b/1.png val/a/3.png", ["--on-bad-image", "skip"]),
        # one of them is held out
        ("a/2.png", "a/1.png", ["--on-bad-image", "skip", "--val-fraction", "0"]),
        ("a/1.png", "a/2.png", ["--on-bad-image", "skip", "--val-fraction", "0"]),
    ],
)
def test_the_command_that_skips_bad_images_works(
    rela: Rela, tmp_path: Path, bad: str, good: str, options: list[str]
):
    root = write(tmp_path / "it's", bad, good)
    said = rela("convert", root, "--name", "set", exit_code=65).stderr
    words = command_in(said)
    assert words[:2] == ["convert", str(root)] and set(options) | {"--name", "set"} <= set(words)
    left = rela(*words).stderr
    assert "1 bad image is left out" in left and "train has no image" not in left


def test_without_a_good_image_no_command_is_printed(rela: Rela, tmp_path: Path):
    root = write(tmp_path / "set", "a/1.png a/2.png", "")
    said = rela("convert", root, "--val-fraction", 0, exit_code=65).stderr
    assert "2 bad images in" in said and "All images of a split are bad" in said and "`" not in said
    words = ("convert", root, "--val-fraction", 0, "--on-bad-image", "skip")
    said = rela(*words, exit_code=65).stderr
    assert "rela: all 2 images of train are bad" in said and "left_out.csv" not in said


@pytest.mark.parametrize("files_are", ["pictures", "elsewhere/pictures"])
def test_a_table_in_another_folder_than_its_paths_names_image_root(
    rela: Rela, tmp_path: Path, files_are: str
):
    paths = [f"pictures/{'ab'[i % 2]}/{i}.png" for i in range(12)]
    write(
        tmp_path / files_are.removesuffix("/pictures").removesuffix("pictures"), "", " ".join(paths)
    )
    (tmp_path / "lists").mkdir()
    rows = "\n".join(["path,label", *(f"{path},{path.split('/')[1]}" for path in paths)])
    (tmp_path / "lists/all.csv").write_text(rows)
    said = rela("convert", "lists/all.csv", "--val-fraction", 0, exit_code=65).stderr
    assert "none of the 12 paths in lists/all.csv exists below" in said
    assert not list((tmp_path / "workspace").glob("*.csv"))
    if files_are == "pictures":
        rela(*command_in(said))
    else:
        assert "--image-root FOLDER" in said and "`" not in said


def test_a_class_of_bad_images_is_named(rela: Rela, tmp_path: Path):
    root = write(tmp_path / "set", "b/1.png b/2.png", "a/1.png a/2.png")
    said = rela("convert", root, "--on-bad-image", "skip", "--val-fraction", 0).stderr
    assert "train has no image of class 'b'" in said
    assert (
        "train has no image of class 'b'"
        in read_json(rela("status", "set", "--json"))["summary"]["notes"]
    )


def test_reasons_that_differ_in_numbers_are_one():
    assert without_numbers("too large: 70,000×3") == without_numbers("too large: 8×90,000")
    assert without_numbers("empty file (0 bytes)") == "empty file (0 bytes)"
