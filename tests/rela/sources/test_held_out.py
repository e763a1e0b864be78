"""The validation split that is cut where there is none.

Covers: stratified, seeded, independent of everything but names; an image at least of every class that has
two; copies on one side, found without reading what cannot be one; the default; what is said; data sets that
were converted before a split was cut by default.
"""

import os
from collections import Counter
from pathlib import Path

import pytest
from command_line import Rela
from empty_files import make, many
from opened import paths_and_labels as pairs
from pictures import MakeTree

from rela.errors import DataError
from rela.sources.image_folder import scan
from rela.sources.source import FileRange, Held, Sample
from rela.sources.splits.held_out import find_copies, hold_out, with_val
from rela.sources.splits.subset import evenly
from rela.stages.dataset_of import say_if_changed
from rela.stages.workspace.workspace import Workspace


def test_a_fraction_of_every_class_goes_to_val(tmp_path):
    folder = with_val(scan(make(tmp_path, *many(".", a=40, b=10, c=4))), 0.25, 0)
    counts = {
        split: [sum(label == k for _, label in pairs(folder, split)) for k in range(3)]
        for split in ("train", "val")
    }
    assert counts == {"train": [30, 7, 3], "val": [10, 3, 1]}  # 2.5 is rounded up


def test_the_two_parts_are_the_whole_in_the_old_order(tmp_path):
    make(tmp_path, *many(".", a=20, b=20))
    whole, cut = pairs(scan(tmp_path)), with_val(scan(tmp_path), 0.3, 0)
    assert sorted(pairs(cut) + pairs(cut, "val")) == whole
    for split in ("train", "val"):
        assert pairs(cut, split) == sorted(pairs(cut, split))


def test_the_split_depends_only_on_the_seed(tmp_path):
    make(tmp_path / "one", *many(".", a=50, b=50))
    make(tmp_path / "other", *reversed(many(".", a=50, b=50)))
    one, other = (
        [with_val(scan(tmp_path / where), 0.2, seed).splits for seed in (0, 1)]
        for where in ("one", "other")
    )
    assert one == other and one[0] != one[1]


def test_another_class_does_not_change_the_cut_of_this_one(tmp_path):
    before = pairs(with_val(scan(make(tmp_path, *many(".", b=30))), 0.2, 0), "val")
    after = pairs(with_val(scan(make(tmp_path, *many(".", a=30))), 0.2, 0), "val")
    assert [path for path, _ in before] == [path for path, label in after if label == 1]


def test_the_cut_is_not_the_first_images(tmp_path):
    val = pairs(with_val(scan(make(tmp_path, *many(".", a=100))), 0.2, 0), "val")
    assert [path for path, _ in val] != [f"a/{i:03d}.png" for i in range(20)]


def test_every_class_keeps_an_image_in_train(tmp_path):
    folder = with_val(scan(make(tmp_path, *many(".", a=1, b=2))), 0.9, 0)
    assert sorted(label for _, label in pairs(folder)) == [0, 1]
    assert [label for _, label in pairs(folder, "val")] == [1]


def test_a_flat_folder_can_be_cut_too(tmp_path):
    folder = with_val(scan(make(tmp_path, *(f"{i}.png" for i in range(10)))), 0.2, 0)
    assert (len(folder.splits["train"]), len(folder.splits["val"])) == (8, 2)


def test_every_class_with_two_images_has_one_in_val(tmp_path):
    counts = {f"c{i:02}": i + 1 for i in range(30)}
    for fraction in (None, 0.1, 0.01):
        folder = with_val(scan(make(tmp_path, *many(".", **counts))), fraction, 0)
        val = Counter(label for _, label in pairs(folder, "val"))
        assert sorted(val) == list(range(1, 30)) and folder.val_fraction == (fraction or 0.1)
        for label, count in val.items():
            assert count == max(1, int((fraction or 0.1) * (label + 1) + 0.5))


def test_the_default_is_for_labelled_images_without_val(tmp_path):
    labelled = with_val(scan(make(tmp_path / "a", *many(".", x=20))), None, 0)
    assert (
        len(labelled.splits["val"]) == 2 and "2 of 20 images, of every class" in labelled.notes[-1]
    )
    assert list(with_val(scan(tmp_path / "a"), 0, 0).splits) == ["train"]
    assert list(with_val(scan(make(tmp_path / "b", "1.png", "2.png")), None, 0).splits) == ["train"]
    own = scan(make(tmp_path / "c", *many("train", x=20), *many("val", x=3)))
    assert with_val(own, None, 0) == own
    single = with_val(scan(make(tmp_path / "d", "a/1.png", "b/1.png")), None, 0)
    assert list(single.splits) == ["train"] and "no class has two" in single.notes[-1]


def test_copies_stay_on_one_side():
    samples = [Sample(f"{i:03}", i % 2) for i in range(400)]
    copies = {sample.path: str(i // 6) for i, sample in enumerate(samples[:120])}  # of both classes
    copies |= {s.path: f"even {i // 12}" for i, s in enumerate(samples) if i >= 120 and not s.label}
    found = hold_out(samples, 0.1, 0, copies)
    sides: dict[str, set[str]] = {}
    for split, of in found.items():
        for sample in of:
            sides.setdefault(copies.get(sample.path, sample.path), set()).add(split)
    assert all(len(side) == 1 for side in sides.values())
    num_val = Counter(sample.label for sample in found["val"])
    assert 14 <= num_val[0] <= 26 and num_val[1] == 20
    assert sum(map(len, found.values())) == 400
    # labels that contradict each other are no validation images
    assert {s.path for s in found["val"]} <= {s.path for s in samples[120:]}


def test_a_class_of_copies_stays_in_train():
    samples = [Sample(str(i), i // 2) for i in range(4)]
    found = hold_out(samples, 0.1, 0, {"0": "x", "1": "x"})
    assert [s.label for s in found["val"]] == [1] and len(found["train"]) == 3


def test_copies_are_found_without_reading_what_cannot_be_one(tmp_path, monkeypatch):
    long = bytes(range(256)) * 400
    contents = {
        "a": b"x", "b": b"yy", "c": b"yz", "d": b"yy", "e": long, "f": long, "g": b"\1" + long[1:],
        "h": long[:-1] + b"\0", "i": long + b"1",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    samples = [Sample(name, 0) for name in contents]
    samples += [Sample("held", 0, Held(b"yy")), Sample("gone", 0), Sample("gone too", 0)]
    samples.append(Sample("part", 0, FileRange(str(tmp_path / "i"), 0, len(long))))
    read: list[str] = []
    plain = Sample.sha256
    monkeypatch.setattr(Sample, "sha256", lambda s, root: read.append(s.path) or plain(s, root))
    done: list[int] = []
    found = find_copies(tmp_path, samples, done.append)
    groups = Counter(found.values())
    assert sorted(found) == ["b", "d", "e", "f", "part"] and sorted(groups.values()) == [2, 3]
    assert sum(done) == len(samples)
    assert not set(read) & {"a", "i", "c", "h"}  # of a size or an end of their own


def test_a_fraction_is_refused_where_nothing_can_be_held_out(tmp_path):
    with pytest.raises(DataError, match="less than one image of any class"):
        with_val(scan(make(tmp_path, "a/1.png", "b/1.png")), 0.5, 0)


# At the command line

TAIL = {f"c{i}/{k}.png": (8, 8) for i in range(4) for k in range(30 if i == 0 else 3)}


def test_copies_in_files_stay_on_one_side(rela: Rela, make_tree: MakeTree):
    tree = make_tree(TAIL)
    for i in range(20):
        (tree / f"c0/{i}.png").write_bytes((tree / "c0/0.png").read_bytes())
    (tree / "c1/1.png").write_bytes((tree / "c2/1.png").read_bytes())
    said = rela("convert", tree, "--workers", 1).stderr
    assert "of 39 images, of every class, are held out" in said
    sides: dict[str, set[str]] = {}
    for split in ("train", "val"):
        for row in Path(f"workspace/datasets/images/{split}.csv").read_text().splitlines()[1:]:
            sides.setdefault(row.split(",")[3], set()).add(split)
    assert len(sides) == 39 - 19 - 1 and all(len(side) == 1 for side in sides.values())


def test_a_data_set_of_before_is_found_or_named(rela: Rela, make_tree: MakeTree):
    tree = make_tree(TAIL)
    rela("convert", tree, "--workers", 1, "--val-fraction", 0)
    said = rela("convert", tree, "--max-side", 8, "--val-fraction", 0.1, exit_code=2).stderr
    assert "made from other images or with other options" in said
    said = rela("convert", tree, "--workers", 1, exit_code=2).stderr.strip().splitlines()[-1]
    assert "without a validation split" in said
    commands = said.split("`")[1::2]
    assert commands[0].endswith("--val-fraction 0 --workers 1"), commands
    for command in commands:
        found = rela(*command.split()[1:])
    assert "written to" in found.stdout and "images-val" in found.stdout
    assert "of 39 images" in rela("convert", tree, "--name", "images-val").stderr  # and found again
    said = rela("embed", tree, "--prior", "random:shufflenet_v2_x0_5", "--image-size", 32).stderr
    assert "are data set images" in said


def test_copies_between_splits_are_said(rela: Rela, make_tree: MakeTree):
    tree = make_tree({f"{s}/a/{i}.png": (8, 8) for s in ("train", "val") for i in range(3)})
    (tree / "val/a/0.png").write_bytes((tree / "train/a/2.png").read_bytes())
    assert "1 images of val are also in train, byte for byte" in rela("convert", tree).stderr


def test_a_folder_that_has_changed_is_never_embedded_without_a_word(
    rela: Rela, make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
):
    """A data set and a folder of one name: `rela embed images` takes the data set, and says what changed."""
    said: list[str] = []
    tree = make_tree(TAIL)
    rela("convert", "images", "--workers", 1)
    workspace = Workspace(Path("workspace"))
    dataset = workspace.dataset("images")

    def changes() -> str:
        said.clear()
        say_if_changed(workspace, dataset, Path("images"), said.append)
        return " ".join(said)

    assert changes() == ""
    os.utime(tree / "c0/0.png")  # touched, but the same
    assert changes() == ""
    read: list[str] = []
    monkeypatch.setattr(Sample, "sha256", lambda sample, root: read.append(sample.path))
    assert changes() != "" and read == ["c0/0.png"]  # nothing else is read
    monkeypatch.undo()
    monkeypatch.chdir(tree.parent)
    old = (tree / "c0/1.png").stat()
    (tree / "c0/1.png").write_bytes((tree / "c0/2.png").read_bytes())
    os.utime(tree / "c0/1.png", ns=(old.st_atime_ns, old.st_mtime_ns))  # as rsync and cp -p do
    (tree / "c1/0.png").unlink()
    (tree / "c1/new.png").write_bytes((tree / "c0/2.png").read_bytes())
    for words in (
        "1 images new, 1 images gone, 1 images changed",
        "`rela convert images --val-fraction 0.1 --name images-2`",
    ):
        assert words in changes()
    embed = rela("embed", "images", "--prior", "random:shufflenet_v2_x0_5", "--image-size", 32)
    assert "warning: images has changed since" in embed.stderr
    (tree.parent / "elsewhere").mkdir()
    say_if_changed(workspace, dataset, tree.parent / "elsewhere", said.append)
    assert "was made from" in said[-1]


def test_max_images_takes_evenly_from_all_classes_and_finds_the_same_again(
    rela: Rela, make_tree: MakeTree
):
    sizes = {"a": 2, "b": 30, "c": 40}
    samples = [
        Sample(f"{name}/{n}", "abc".index(name)) for name, of in sizes.items() for n in range(of)
    ]
    for count, expected in ((1, [1]), (9, [2, 3, 4]), (12, [2, 5, 5]), (99, [2, 30, 40])):
        found = evenly(samples, count, 0)
        assert sorted(Counter(s.label for s in found).values()) == expected, count
        assert found == [s for s in samples if s in found]
    assert evenly(samples, 20, 0) != evenly(samples, 20, 1)
    assert {*evenly(samples, 20, 0)} <= {*evenly(samples, 30, 0)}
    tree = make_tree(TAIL)
    said = rela("convert", tree, "--workers", 1, "--max-images", 12, "--seed", 3).stderr
    assert (
        "--max-images: 12 of 39 images of train" in said
        and "4 of 12 images, of every class" in said
    )
    assert "4 classes" in rela("status", "images").stdout
    again = rela("convert", tree, "--workers", 1, "--max-images", 12, "--seed", 3)
    assert "already exists, unchanged" in again.stdout
    rela("convert", tree, "--workers", 1, "--max-images", 12, exit_code=2)
