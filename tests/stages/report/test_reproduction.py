"""The `rela convert` of a report, run in an empty folder, makes the same data set from any source."""

import io
import os
import shlex
import tarfile
from pathlib import Path

import pytest
from command_line import Rela
from pictures import MakeTree, png, save_tree

from rela.stages.conversion import request_of
from rela.stages.requests import words_of
from rela.stages.workspace.workspace import Workspace


def table(root: Path) -> tuple[str, ...]:
    """A table of two possible columns of classes, its images elsewhere."""
    save_tree(root / "photos of mine", {f"{i}.png": (20, 20) for i in range(12)})
    rows = [f"{i}.png,{'ab'[i % 2]},{'cde'[i % 3]}" for i in range(12)]
    (root / "list.csv").write_text("\n".join(["file,first,second", *rows]))
    columns = ("--image-column", "file", "--label-column", "second")
    return ("list.csv", *columns, "--image-root", "photos of mine", "--format", "csv")


def ambiguous(root: Path) -> tuple[str, ...]:
    """Folders that are classes or splits."""
    save_tree(
        root / "two",
        {f"{split}/{i}.png": (20, 20) for split in ("train", "test") for i in range(6)},
    )
    return ("two", "--layout", "classes", "--seed", "3", "--val-fraction", "0.5")


def shards(root: Path) -> tuple[str, ...]:
    """Two images of each key."""
    (root / "shards").mkdir()
    with tarfile.open(root / "shards/0.tar", "w") as archive:
        for i in range(8):
            left, right, label = png(i, 20, 20), png(50 + i, 20, 20), str(i % 2).encode()
            for name, content in (("left.png", left), ("right.png", right), ("cls", label)):
                member = tarfile.TarInfo(f"{i}.{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return ("shards", "--image-field", "right.png")


def stored_otherwise(root: Path) -> tuple[str, ...]:
    """Every option of storing, and a bad image; a path with a dollar and a quote."""
    folder = "it's $HOME"
    save_tree(root / folder, {f"{c}/{i}.png": (40, 30) for c in "ab" for i in range(8)})
    (root / folder / "a/9.png").write_text("no picture")
    how = (
        "--write-mode",
        "proportion",
        "--jpeg-share",
        "0.3",
        "--jpeg-quality",
        "80",
        "--seed",
        "7",
    )
    return (
        folder,
        *how,
        "--max-side",
        "32",
        "--background",
        "#102030",
        "--bits",
        "12",
        "--on-bad-image",
        "skip",
    )


@pytest.mark.parametrize("make", [table, ambiguous, shards, stored_otherwise])
def test_the_printed_command_makes_the_same_data_set(
    rela: Rela, tmp_path: Path, make, monkeypatch: pytest.MonkeyPatch
):
    rela("convert", *make(tmp_path), "--name", "mine")
    [first] = Workspace(tmp_path / "workspace").datasets()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    words = shlex.split(shlex.join(words_of("convert", request_of(first))))
    rela(*words[1:])
    [again] = Workspace(Path("workspace")).datasets()
    assert (again.name, again.fingerprint) == (first.name, first.fingerprint)
    assert again.manifest.parameters == first.manifest.parameters
    for split in first.splits:
        assert again.beton_path(split).read_bytes() == first.beton_path(split).read_bytes()
    assert "unchanged" in rela(*words[1:]).stdout


def test_a_changed_folder_is_read_as_it_was_converted(rela: Rela, make_tree: MakeTree):
    """The command that is named has its options, too."""
    paths = {f"{split}/{i}.png": (20, 20) for split in ("train", "test") for i in range(6)}
    root = make_tree(paths)
    rela("convert", "images", "--layout", "classes")
    embed = ("embed", "images", "--prior", "random:shufflenet_v2_x0_5")
    assert "images" not in rela(*embed).stderr
    os.rename(root / "test/0.png", root / "test/new.png")
    said = rela(*embed).stderr
    assert "warning: images has changed" in said and "--layout classes" in said
