"""WebDataset shards, written with `tarfile` and read back with Pillow.

Covers: labels from .cls and .json, numbers and text; splits by folder, by name and by pattern; the same
betons as from a folder and for any number of workers; a shard that changes under the reader; links,
names that lead out, headers that claim too much, cut and damaged archives.
"""

import gzip
import io
import json
import resource
import shlex
import shutil
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run_rela
from opened import open_as, paths_and_labels
from pictures import picture, save_tree
from tar_shards import Members, labelled, png, shard

import rela.stages.same_images
from rela.errors import ChoiceError, DataError
from rela.sources import default_name, find_kind, open_source
from rela.sources.image_file import BadImageError
from rela.sources.pixels import decode_image
from rela.sources.source import SourceOptions
from rela.sources.splits.held_out import with_val
from rela.stages.convert import convert
from rela.stages.requests import Convert
from rela.stages.workspace.workspace import Workspace

opened, found = partial(open_as, "webdataset"), paths_and_labels


def test_images_and_labels_are_those_of_the_members(tmp_path: Path):
    path = shard(tmp_path / "set.tar", labelled(0, ["2", "0", "2"]))
    source = opened(path)
    assert source.class_names == ["0", "2"]
    assert found(source) == [
        ("set.tar/0000.png", 1), ("set.tar/0001.png", 0), ("set.tar/0002.png", 1)
    ]  # fmt: skip
    for seed, sample in enumerate(source.splits["train"]):
        np.testing.assert_array_equal(decode_image(sample.read(source.root)), picture(seed, 12, 10))


@pytest.mark.parametrize(
    ("labels", "suffix", "names", "numbers"),
    [
        (["10", "9", "10 \n"], "cls", ["9", "10"], [1, 0, 1]),
        (["dog", "10", "cat"], "cls", ["10", "cat", "dog"], [2, 0, 1]),
        (["007", "008", "007"], "cls", ["007", "008"], [0, 1, 0]),
        (["007", "7", "8"], "cls", ["7", "8"], [0, 0, 1]),
        ([json.dumps({"label": n}) for n in (3, 1, 3)], "json", ["1", "3"], [1, 0, 1]),
        ([json.dumps({"class": n, "x": 0}) for n in "bab"], "json", ["a", "b"], [1, 0, 1]),
        (["{}", "[1]", '{"label": true}'], "json", [], [-1, -1, -1]),
        (["-1", "-1", "-1"], "cls", [], [-1, -1, -1]),
        (["a caption"] * 3, "txt", [], [-1, -1, -1]),
    ],
)
def test_labels_are_numbers_or_text(
    tmp_path: Path, labels: list[str], suffix: str, names: list[str], numbers: list[int]
):
    source = opened(shard(tmp_path / "set.tar", labelled(0, labels, suffix)))
    assert source.class_names == names and source.labelled == bool(names)
    assert [label for _, label in found(source)] == numbers


def test_listing_reports_progress(tmp_path: Path):
    shards = [shard(tmp_path / f"{i}.tar", labelled(9 * i, ["a", "b"])) for i in range(3)]
    heard: list[tuple[int, int]] = []
    open_source(tmp_path, "auto", SourceOptions(), lambda *told: heard.append(told))
    size = sum(path.stat().st_size for path in shards)
    assert len(heard) == 3 * (2 * 2 + 1)  # members, and the rest of each shard
    assert {in_all for _, in_all in heard} == {size}
    assert sum(more for more, _ in heard) == size and min(more for more, _ in heard) > 0


def test_comparing_sources_shows_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shard(tmp_path / "set/train-0.tar", labelled(0, ["a", "b", "a"]))
    shard(tmp_path / "set/val-0.tar", labelled(5, ["a", "b"]))
    workspace = Workspace(tmp_path / "workspace")
    convert(workspace, Convert(tmp_path / "set"))
    shown: list[tuple[int, str]] = []
    plain = rela.stages.same_images.progress_bar

    def noted(total: int, description: str, *rest: Any, **more: Any) -> Any:
        shown.append((total, description))
        return plain(total, description, *rest, **more)

    monkeypatch.setattr(rela.stages.same_images, "progress_bar", noted)
    assert convert(workspace, Convert(tmp_path / "set")).cached
    assert shown == [(3, "compare train"), (2, "compare val")]


def test_keys_end_at_the_first_dot_of_the_last_part(tmp_path: Path):
    members = [
        ("./a.b/1.cls", b"x"), ("./a.b/1.png", png(0)), ("./a.b/1.mask.png", png(1)),
        ("c/1.PNG", png(2)), ("c/1.cls", b"y"), ("c/._1.png", b""), ("lonely.txt", b""), ("d/", b""),
    ]  # fmt: skip
    source = opened(shard(tmp_path / "set.tar", members))
    assert found(source) == [("set.tar/./a.b/1.png", 0), ("set.tar/c/1.PNG", 1)]
    assert source.stray_files == ["set.tar/lonely.*"]
    assert source.num_skipped == {"._*": 1} and "1 mask.png" in source.notes[0]


def test_names_with_dots_lose_no_image(tmp_path: Path):
    members: Members = []
    for i in range(40):
        key = ("img{0:02}", "cam_2024.05.{0:02}", "v1.{0:02}.final", "a.b/c.{0}.d")[i % 4].format(i)
        members += [(f"{key}.png", png(i)), (f"{key}.cls", str(i % 3).encode())]
    source = opened(shard(tmp_path / "set.tar", members))
    labels = [int(content) for name, content in members if name.endswith("cls")]
    assert [label for _, label in found(source)] == labels and source.stray_files == []


@pytest.mark.parametrize(
    ("names", "images"),
    [
        (["a.1.png", "a.2.png"], ["a.1.png", "a.2.png"]),
        (
            ["2024.05.png", "2024.06.png", "2025.05.png"],
            ["2024.05.png", "2024.06.png", "2025.05.png"],
        ),
        (["a.png", "a.mask.png", "b.png", "b.mask.png"], ["a.png", "b.png"]),
        (["a.image.png", "b.image.png"], ["a.image.png", "b.image.png"]),
        (["a.holiday.png", "b.png"], ["a.holiday.png", "b.png"]),
        (["@eaDir/a.png", "a.png", "__MACOSX/._a.png"], ["a.png"]),
    ],
)
def test_names_with_dots_and_no_labels(tmp_path: Path, names: list[str], images: list[str]):
    source = opened(shard(tmp_path / "set.tar", [(name, png(0)) for name in names]))
    assert [path.removeprefix("set.tar/") for path, _ in found(source)] == images
    assert len(source.notes) == (len(names) > len(images) and "mask" in names[1])


def test_one_of_several_images_of_a_key_is_chosen(tmp_path: Path):
    members: Members = []
    for i in range(4):
        for j, field in enumerate(("left.png", "right.PNG", "cls")):
            members.append((f"{i:04}.{field}", b"7" if field == "cls" else png(2 * i + j)))
    path = shard(tmp_path / "it's.tar", members[:-1])  # the last has no label
    with pytest.raises(ChoiceError, match="2 images with the key '0000'") as caught:
        opened(path)
    commands = str(caught.value).split("`")[1::2]
    assert [shlex.split(command)[-2:] for command in commands] == [
        ["--image-field", "left.png"], ["--image-field", "right.png"],
    ]  # fmt: skip
    shard(path, members)
    for name, command in zip(("left", "right"), commands, strict=True):
        run_rela("--workspace", tmp_path / "ws", *shlex.split(command)[1:], "--name", name)
    right = opened(path, image_field="Right")
    for i, sample in enumerate(right.splits["train"]):
        assert sample.read(right.root) == png(2 * i + 1)
    assert right.class_names == ["7"] and "4 left.png" in right.notes[0]
    with pytest.raises(ChoiceError, match=r"up is no field of .*; found left\.png, right\.png"):
        opened(path, image_field="up")


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train-000.tar", "val-000.tar"),
        ("imagenet_train_7.tar", "imagenet_validation_0.tar"),
        ("training/000.tar", "valid/000.tar"),
        ("shards/train/a-0.tar", "shards/test/a-0.tar"),
        ("000.tar", "val000.tar"),
    ],
)
def test_splits_follow_the_names_of_files_or_folders(tmp_path: Path, train: str, val: str):
    shard(tmp_path / train, labelled(0, ["a", "b"]))
    shard(tmp_path / val, labelled(5, ["b"]))
    source = opened(tmp_path)
    assert found(source) == [(f"{train}/0000.png", 0), (f"{train}/0001.png", 1)]
    assert found(source, "val") == [(f"{val}/0005.png", 1)]
    with pytest.raises(DataError, match="has a validation split of its own"):
        with_val(source, 0.5, 0)


def test_shards_without_a_split_are_train_in_the_order_of_their_names(tmp_path: Path):
    for number in (2, 0, 1):
        shard(tmp_path / f"{number:03}.tar", labelled(number, ["x"]))
    source = opened(tmp_path)
    assert [path for path, _ in found(source)] == [f"00{i}.tar/000{i}.png" for i in range(3)]
    assert list(opened(tmp_path).splits) == ["train"]
    cut = with_val(open_source(tmp_path, "auto", SourceOptions()), 0.4, 0)
    assert [len(cut.splits[split]) for split in ("train", "val")] == [2, 1]


def test_a_third_split_is_left_out_and_named(tmp_path: Path):
    for name in ("train", "val", "test"):
        shard(tmp_path / f"{name}-0.tar", labelled(0, ["x"]))
    source = opened(tmp_path)
    assert list(source.splits) == ["train", "val"] and source.ignored_splits == ["test"]
    (tmp_path / "train-0.tar").unlink()
    with pytest.raises(DataError, match="expected a train split, found test, val"):
        opened(tmp_path)


def test_patterns_and_ranges_choose_shards(tmp_path: Path):
    for number in range(8, 12):
        shard(tmp_path / "s" / f"train-{number:03}.tar", labelled(number, ["x"]))
    for pattern, numbers in (
        ("train-*.tar", [8, 9, 10, 11]), ("train-{009..010}.tar", [9, 10]), ("train-00?.tar", [8, 9]),
    ):  # fmt: skip
        path = tmp_path / "s" / pattern
        expected = [f"train-{n:03}.tar/{n:04}.png" for n in numbers]
        assert [p for p, _ in found(opened(path))] == expected
        assert default_name(path) == "s"
    with pytest.raises(DataError, match=r"train-012\.tar: no such file"):
        opened(tmp_path / "s" / "train-{008..012}.tar")
    with pytest.raises(DataError, match="not a range of at most"):
        opened(tmp_path / "s" / "train-{0..99999999999}.tar")


def test_a_folder_with_images_stays_a_folder_of_images(tmp_path: Path):
    save_tree(tmp_path, {"train/a/1.png": (12, 10)})
    shard(tmp_path / "images.tar", labelled(0, ["x"]))
    assert find_kind(tmp_path) == "folder"
    source = open_source(tmp_path, "webdataset", SourceOptions())
    assert found(source) == [("images.tar/0000.png", 0)]


def test_betons_are_those_of_the_same_files_in_folders(tmp_path: Path):
    members = labelled(0, ["a"] * 20 + ["b"] * 20)
    shard(tmp_path / "tars" / "0.tar", members[:30])
    shard(tmp_path / "tars" / "1.tar", members[30:])
    for name, content in members[::2]:
        folder = tmp_path / "files" / ("a" if int(name[:4]) < 20 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for name, workers in (("files", 1), ("tars", 1), ("tars", 2)):
        place = ("--workspace", tmp_path / f"{name}{workers}")
        words = (*place, "convert", tmp_path / name, "--val-fraction", 0)
        assert "written to" in run_rela(*words, "--workers", workers).stdout
    there = run_rela(*words).stdout
    assert "already exists" in there and "2 classes" in there
    places = ("files1/datasets/files", "tars1/datasets/tars", "tars2/datasets/tars")
    files, one, two = (tmp_path / place / "train.beton" for place in places)
    assert files.read_bytes() == one.read_bytes() == two.read_bytes()
    rows = (one.parent / "train.csv").read_text().splitlines()
    assert rows[1].startswith("0,0,0.tar/0000.png,")

    altered = [(n, png(99) if n == "0003.png" else content) for n, content in members[:30]]
    shard(tmp_path / "tars" / "0.tar", altered)
    assert "made from other images" in run_rela(*words, exit_code=2).output


def test_bad_images_are_named_or_left_out(tmp_path: Path):
    members = [*labelled(0, ["a", "b"]), ("0007.png", b"none"), ("0007.cls", b"a")]
    path = shard(tmp_path / "set.tar", members)
    words = ("--workspace", tmp_path / "ws", "convert", path, "--val-fraction", 0)
    lines = run_rela(*words, exit_code=65).output.splitlines()
    assert "  set.tar/0007.png: not an image that Pillow can read" in lines
    output = run_rela(*words, "--on-bad-image", "skip").output
    assert "1 bad image is left out, and in " in output and "  set.tar/0007.png: not an" in output
    assert "train       2 images" in output


# What is refused


def test_links_and_names_outside_are_refused(tmp_path: Path):
    (tmp_path / "secret.png").write_bytes(png(0))
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for i, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE), 1):
            link = tarfile.TarInfo(f"{i}.png")
            link.type, link.linkname = kind, str(tmp_path / "secret.png")
            tar.addfile(link)
        for name in ("../4.png", "/5.png", "a/../../6.png"):
            member = tarfile.TarInfo(name)
            member.size = len(png(0))
            tar.addfile(member, io.BytesIO(png(0)))
    source = opened(tmp_path / "set.tar")
    reasons = []
    for sample in source.splits["train"]:
        with pytest.raises(BadImageError) as caught:
            sample.read(source.root)
        reasons.append(str(caught.value))
    link, outside = "no regular file in its archive", "its name leads out of the archive"
    assert reasons == [link] * 3 + [outside] * 3


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.png", b""), ("1.jpg", b"")], "2 images with the key '1' in set.tar: png, jpg; choose one"),
        ([("1.png", b""), ("1.png", b"")], "two images with the key '1'"),
        ([("1.png", b""), ("1.cls", b"\xff")], r"1\.cls is not valid UTF-8"),
        ([("1.png", b""), ("1.json", b"{")], r"1\.json is not valid JSON"),
        ([("1.png", b""), ("1.json", b"[" * 100_000)], r"1\.json is not valid JSON"),
        ([("1.png", b""), ("1.cls", bytes(2 << 20))], "too many for a label"),
        ([("1.png", b""), ("1.cls", b"a"), ("2.png", b"")], "1 of 2 images have no label"),
        ([("1.cls", b"a")], "holds no images"),
        ([], "holds no images"),
    ],
)  # fmt: skip
def test_odd_members_are_refused_in_one_line(tmp_path: Path, members: Members, message: str):
    with pytest.raises((DataError, ChoiceError), match=message) as caught:
        opened(shard(tmp_path / "set.tar", members))
    assert "set.tar" in str(caught.value) and "\n" not in str(caught.value)


def test_a_class_that_only_val_has_is_refused(tmp_path: Path):
    shard(tmp_path / "train.tar", labelled(0, ["ant"]))
    shard(tmp_path / "val.tar", labelled(0, ["wolf"]))
    with pytest.raises(DataError, match="val has class 'wolf', which train lacks"):
        opened(tmp_path)


def test_a_compressed_shard_is_refused_with_a_remedy(tmp_path: Path):
    content = gzip.compress(shard(tmp_path / "set.tar", labelled(0, ["x"])).read_bytes())
    for name in ("set.tar.gz", "set.tgz", "set.tar"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=r"compressed.*gunzip"):
            opened(tmp_path / name)


def test_a_shard_is_whole_or_refused(tmp_path: Path):
    """Cut anywhere, or with a damaged header: no sample is lost without a word."""
    path = shard(tmp_path / "set.tar", labelled(0, ["x"] * 4), format=tarfile.USTAR_FORMAT)
    sound = path.read_bytes()
    with tarfile.open(path) as tar:
        headers = [member.offset for member in tar]
        end = tar.offset
    cuts = [*range(0, end + 1, 100), *headers, *(at + 512 for at in headers)]
    for content in [*(sound[:cut] for cut in cuts)]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"set\.tar"):
            opened(path)
    for header in headers:
        path.write_bytes(sound[: header + 5] + b"\xff" + sound[header + 6 :])
        with pytest.raises(DataError, match="damaged"):
            opened(path)
    path.write_bytes(sound + sound)
    with pytest.raises(DataError, match="several tars in one"):
        opened(path)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("size", [1 << 33, 1 << 62, -1, -(1 << 40)])
def test_a_header_that_claims_too_much_takes_no_memory(tmp_path: Path, kind: bytes, size: int):
    head = tarfile.TarInfo("1.png")
    head.type, head.size = kind, size
    (tmp_path / "set.tar").write_bytes(head.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"set\.tar"):
        opened(tmp_path / "set.tar")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def test_a_shard_cut_while_reading_gives_bad_images(tmp_path: Path):
    path = shard(tmp_path / "set.tar", labelled(0, ["x", "y"]))
    source = opened(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(BadImageError, match="cut off"):
        source.splits["train"][1].read(source.root)
    path.unlink()
    with pytest.raises(BadImageError, match="No such file"):
        source.splits["train"][1].read(source.root)


def test_nothing_is_written_beside_the_shards(tmp_path: Path):
    shard(tmp_path / "in" / "set.tar", labelled(0, ["x", "y"]))
    shutil.copytree(tmp_path / "in", tmp_path / "copy")
    run_rela("--workspace", tmp_path / "ws", "convert", tmp_path / "in", "--workers", 1)
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["set.tar"]
    assert (tmp_path / "in/set.tar").read_bytes() == (tmp_path / "copy/set.tar").read_bytes()
