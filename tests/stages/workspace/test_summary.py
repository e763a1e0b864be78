"""What `rela convert` says at its end, and `rela status DATASET` says again.

Covers: the counts, against a folder made by hand; the same from the command line, as JSON and from the
stored file; byte-identical files within and between splits and classes, against a count by hand; a screen
that it fits on, whatever the names; control characters; a damaged summary.
"""

import json
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import Rela, read_json
from pictures import picture
from PIL import Image
from tiny_pngs import deep_png

from rela.data.beton.tally import Named
from rela.data.beton.writer import WriteResult
from rela.sources.source import Sample
from rela.stages.workspace.summary import (
    ClassCount,
    Reason,
    SplitSummary,
    Summary,
    Twins,
    _summary_in_words,
    _twins,
)


def save(path: Path, image: Image.Image, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def varied(tmp_path: Path) -> Path:
    """Train: 4 cats, 3 dogs; val: a cat, a dog. One of everything."""
    root = tmp_path / "pets"
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.fromarray(picture(0, 12, 10))
    white = Image.new("RGBA", (9, 9), (255, 255, 255, 0))
    save(root / "train/cat/0.png", photo)
    save(root / "train/cat/1.jpg", photo, exif=exif)
    save(root / "train/cat/2.png", white)
    (root / "train/cat/3.png").write_bytes(
        deep_png(np.full((5, 30, 1), 900, np.uint16) + np.arange(30, dtype=np.uint16)[:, None])
    )
    shutil.copytree(root / "train/cat", root / "train/dog", ignore=lambda *_: ["3.png"])
    (root / "train/dog/1.jpg").unlink()
    save(root / "train/dog/4.png", Image.fromarray(picture(1, 12, 10)))
    save(root / "val/cat/9.png", Image.fromarray(picture(2, 12, 10)))
    save(root / "val/dog/9.png", photo)
    (root / "train/dog/bad.png").write_bytes(b"no image")
    (root / "train/dog/notes.txt").write_text("x")
    return root


def test_convert_says_what_it_understood(rela: Rela, varied: Path):
    made = rela("convert", varied, "--on-bad-image", "skip", "--write-mode", "raw")
    said, note = made.stdout, "ignored 1 stray file (1 .txt): train/dog/notes.txt"
    assert made.stderr.count(note) == 1 and note not in said
    assert said.splitlines()[:-3] == [
        "  train       7 images in 2 classes, largest cat (4), smallest dog (3)",
        "  val         2 images in 2 classes, 1 in each",
        "  classes     cat, dog",
        "  formats     8 PNG, 1 JPEG",
        "  sizes       9 to 30 pixels wide, 5 to 12 high, median of the shorter side 10",
        "  alpha       2 with transparent pixels, on white (train/cat/2.png)",
        "  rotation    1 turned upright, as EXIF says (train/cat/1.jpg)",
        "  depth       1 of more than 8 bits; 10 bits, 1,023 is white (train/cat/3.png)",
        "  one colour  2 all of one colour (train/cat/2.png)",
        "              2 of them have transparent pixels: another --background may show them",
        "  identical   within train: 2 (train/dog/0.png = train/cat/0.png)",
        "  identical   val also in train: 1 (val/dog/9.png = train/cat/0.png)",
        "  identical   in several classes: 3 (train/dog/0.png = train/cat/0.png)",
        "  left out    1 × not an image that Pillow can read (train/dog/bad.png)",
        "  stored      9 raw, 0 JPEG, 262.4 kB",
    ]
    again = rela("status", "pets").stdout.splitlines()
    assert again[0] == f"data set pets of {varied}" and again[-3] == f"  note        {note}"
    assert again[1:-3] + again[-2:] == said.splitlines()[:-2]
    assert (
        "already exists"
        in rela("convert", varied, "--write-mode", "raw", "--on-bad-image", "skip").stdout
    )
    found = read_json(rela("status", "pets", "--json"))["summary"]
    assert found == read_json(Path("workspace/datasets/pets/summary.json"))
    assert found["splits"]["train"]["largest"] == {"name": "cat", "count": 4}
    assert found["turned"] == {"count": 1, "names": ["train/cat/1.jpg"]}
    with Image.open("workspace/datasets/pets/contact_sheet.png") as sheet:
        assert sheet.width > sheet.height > 0
    rela("cache", "verify")


def test_a_data_set_without_labels_says_so(rela: Rela, tmp_path: Path):
    save(tmp_path / "flat/0.png", Image.fromarray(picture(0, 8, 8)))
    found = read_json(rela("convert", tmp_path / "flat", "--json"))["summary"]
    assert found["splits"] == {
        "train": {"num_images": 1, "num_classes": 0, "largest": None, "smallest": None}
    }
    lines = rela("status", "flat").stdout.splitlines()
    assert lines[1:3] == ["  train       1 image, no labels", "  formats     1 PNG"]


def test_a_damaged_summary_is_an_error(rela: Rela, images: Path):
    path = Path("workspace/datasets/images/summary.json")
    path.write_text(path.read_text().replace("PNG", "GIF"))
    said = rela("status", "images", exit_code=65).stderr
    assert "summary.json is damaged" in said


def test_status_of_one_data_set_is_not_watched(rela: Rela, images: Path):
    rela("status", "images", "--watch", exit_code=2)
    assert "no data set 'other'" in rela("status", "other", exit_code=2).stderr


def result_of(images: list[tuple[str, int, int]]) -> WriteResult:
    """(name, class, content) of every image."""
    digests = [f"{content:064x}" for *_, content in images]
    return WriteResult([Sample(name, label) for name, label, _ in images], digests)


@pytest.mark.parametrize("seed", range(5))
def test_byte_identical_files_are_counted(seed):
    random = np.random.default_rng(seed)
    made = {
        split: [(f"{split}{i}", *random.integers(0, (3, 40)).tolist()) for i in range(count)]
        for split, count in (("train", 50), ("val", 20))
    }
    seen: dict[int, list[tuple[str, int]]] = defaultdict(list)
    within, leaked, classes = {"train": 0, "val": 0}, 0, 0
    for split, images in made.items():
        for _, label, content in images:
            earlier = seen[content]
            within[split] += any(where == split for where, _ in earlier)
            leaked += split == "val" and any(where == "train" for where, _ in earlier)
            classes += bool(earlier) and earlier[0][1] != label
            earlier.append((split, label))
    found = _twins({split: result_of(images) for split, images in made.items()})
    assert {split: named.count for split, named in found.within.items()} == within
    assert (found.val_in_train.count, found.between_classes.count) == (leaked, classes)


def test_it_fits_a_screen_whatever_it_says():
    name = "\x1b[31m" + "very long name " * 40
    many = Named(12_345_678, [f"{name} = {name}"] * 3)
    split = SplitSummary(1_281_167, 1000, ClassCount(name, 1300), ClassCount(name, 732))
    summary = Summary(
        splits={"train": split, "val": split},
        num_classes=1000,
        class_names=[name] * 6,
        formats={f"FORMAT{i}": 123_456 for i in range(20)},
        min_size=(1, 1),
        max_size=(65_535, 65_535),
        num_sizes=9999,
        median_shorter_side=375,
        background="#102030",
        transparent=many, turned=many, deep=many, bits=12, float_bits=0, one_colour=many, vanished=many,
        twins=Twins({"train": many, "val": many}, many, many),
        left_out=[Reason(name, 1000, name)] * 9,
        notes=[name] * 9,
    )  # fmt: skip
    lines = _summary_in_words(summary)
    assert len(lines) <= 22 and max(map(len, lines)) <= 100
    assert all(line.isprintable() for line in lines)
    assert json.loads(json.dumps(name)) == name
    quiet = replace(summary, notes=[], left_out=[])
    assert len(_summary_in_words(quiet)) < len(lines)
