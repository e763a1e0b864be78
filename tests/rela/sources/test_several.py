"""Several sources in one call, compared with one folder that holds the same images."""

import shutil
from pathlib import Path

import pytest
from refusals import assert_refused
from tar_shards import labelled, shard

from rela.data.beton.reader import open_beton
from rela.stages.conversion import request_of
from rela.stages.convert import convert
from rela.stages.requests import Convert
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.workspace import Workspace


@pytest.fixture(autouse=True)
def encode_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes would take seconds to start."""
    monkeypatch.setattr(
        "rela.data.beton.writer.WorkerPool.map", lambda _, work, tasks: map(work, tasks)
    )


def converted(workspace: Workspace, *sources: Path, name: str) -> DataSet:
    request = Convert(sources[0], sources[1:], name=name, workers=1)
    return convert(workspace, request, lambda line: None).artifact


def test_classes_and_splits_are_merged_by_name(tmp_path: Path, small_tree: Path):
    """A tree with train and val, class folders with one class of the same name, and a shard."""
    other = tmp_path / "other"
    shutil.copytree(small_tree / "train/bee", other / "bee")
    shutil.copytree(small_tree / "val/cat", other / "dog")
    tar = shard(tmp_path / "s.tar", labelled(0, ["ant", "owl"]))
    workspace = Workspace(tmp_path / "w")
    found = converted(workspace, small_tree, other, tar, name="both")
    assert found.content.class_names == ["ant", "bee", "cat", "dog", "owl"]
    train, val = found.index("train"), found.index("val")
    expected = [(f"images/{p.relative_to(small_tree)}", p.parent.name) for p in sorted(
        small_tree.glob("train/*/*")
    )]  # fmt: skip
    expected += [(str(p.relative_to(tmp_path)), p.parent.name) for p in sorted(other.glob("*/*"))]
    expected += [("s.tar/s.tar/0000.png", "ant"), ("s.tar/s.tar/0001.png", "owl")]
    names = found.content.class_names
    assert [(row["path"], names[int(row["label"])]) for row in train] == expected
    assert {row["path"].split("/")[1] for row in val} == {"val"} and len(val) == 12
    alone = converted(workspace, small_tree, name="alone")
    one, two = (open_beton(each.beton_path("val")) for each in (found, alone))
    for row in range(12):
        ours, its = (b.data[b.pointers[row] : b.pointers[row] + b.sizes[row]] for b in (one, two))
        assert ours.tobytes() == its.tobytes()
    again = request_of(found)
    assert [Path(source) for source in again.sources] == [small_tree, other, tar]
    assert (
        converted(workspace, *map(Path, again.sources), name="both").fingerprint
        == found.fingerprint
    )


REFUSED = {
    "convert images other": (
        2,
        ["2 sources make one data set", "`rela convert images other --name images-other`"],
    ),
    "convert s3://b/a-8.tar s3://b/a-9.tar s3://b/a-10.tar": (
        2,
        ["the shell made 3 sources", "`rela convert 's3://b/a-{8..10}.tar'`"],
    ),
    "convert a-08.tar a-09.tar a-10.tar": (2, ["`rela convert 'a-{08..10}.tar'`"]),
    "embed s3://b/1/0.tar s3://b/1/1.tar --prior x": (
        2,
        ["the shell made 2 names", "`rela embed 's3://b/1/{0..1}.tar' --prior x`"],
    ),
    "embed s3://b/0.tar s3://b/2.tar --prior x": (2, ["unexpected s3://b/2.tar"]),
    "train a1 a2 --prior none": (2, ["unexpected a2"]),
    "convert images images/train --name x": (2, ["images/train lies in", "leave one out"]),
    "convert images images --name x": (2, ["images lies in", "leave one out"]),
    "convert images flat --name x": (65, ["some of its parts have labels", "images, flat"]),
    "convert images s3://bucket/a.tar --name x": (2, ["a URL is the only SRC"]),
    "convert images nowhere --name x": (65, ["nowhere: found nothing"]),
}


@pytest.mark.parametrize(("line", "status", "words"), [(k, *v) for k, v in REFUSED.items()])
def test_mistakes(
    rela: object, small_tree: Path, tmp_path: Path, line: str, status: int, words: list[str]
):
    shutil.copytree(small_tree / "train/ant", tmp_path / "flat")
    shutil.copytree(small_tree / "train", tmp_path / "other")
    assert_refused(tmp_path, line, status, words)
