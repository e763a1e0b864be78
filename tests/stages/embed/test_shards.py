"""Shards embedded where they are: the features of a data set of the same images, a file for each shard.

The expected features are those of one converted data set, which other tests compare with plain PyTorch. Rows
that exist, of other shards or of a data set, are not computed again.
"""

import contextlib
import csv
import io
import os
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from command_line import REPOSITORY, run_rela
from refusals import assert_refused
from tar_shards import labelled, png, shard

from rela.representations.embedder import Embedder
from rela.representations.stacked import StackedRows
from rela.stages.convert import convert
from rela.stages.embed.combine import embed_priors
from rela.stages.embed.results import EmbedResult
from rela.stages.neighbors.neighbors import neighbors
from rela.stages.priors.find import open_representations
from rela.stages.priors.rank import format_result as format_ranking
from rela.stages.priors.rank import rank
from rela.stages.requests import Convert, Embed, Neighbors, Rank
from rela.stages.train.targets import make_targets
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.workspace import Workspace

PRIOR = {"prior": "random:shufflenet_v2_x0_5", "image_size": 32, "threads": 1}


@pytest.fixture(autouse=True)
def encode_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool for every shard would take seconds."""
    monkeypatch.setattr(
        "rela.data.beton.writer.WorkerPool.map", lambda _, work, tasks: map(work, tasks)
    )


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Three shards with other classes each, one bad image, and a shard of bad images alone."""
    folder = tmp_path / "tars"
    for number, labels in enumerate((["b", "a", "b"], ["c", "b"], ["a"])):
        shard(folder / f"{number}.tar", labelled(10 * number, labels))
    shard(folder / "1b.tar", [("bad.png", b"?"), ("bad.cls", b"a")])
    return folder


def embed_url(workspace: Path, url: object, **options: object) -> EmbedResult:
    result = embed_priors(
        Workspace(workspace), Embed(str(url), **PRIOR | options), lambda line: None
    )
    assert isinstance(result, EmbedResult)
    return result


def artifact_of(result: EmbedResult) -> Representations:
    assert result.artifact is not None
    return result.artifact


def files_of(artifact: Representations) -> dict[str, bytes]:
    paths = [*artifact.path.glob("*.h5"), *artifact.path.glob("*.csv")]
    return {path.name: path.read_bytes() for path in paths}


def test_the_features_are_those_of_a_converted_data_set(tmp_path: Path, tars: Path):
    """Names, labels, features and the key, by which the data set finds them, and trains on them."""
    found = artifact_of(embed_url(tmp_path / "shards", f"file://{tars}"))
    assert [(s.name, s.num_rows) for s in found.content.shards] == [
        ("0.tar", 3), ("1.tar", 2), ("1b.tar", 0), ("2.tar", 1)
    ]  # fmt: skip
    local = Workspace(tmp_path / "local")
    options = {"name": "x", "workers": 1, "on_bad_image": "skip", "val_fraction": 0.0}
    convert(local, Convert(tars, **options), lambda line: None)
    expected = embed_priors(local, Embed("x", **PRIOR), lambda line: None)
    assert isinstance(expected, EmbedResult)
    names = Workspace(tmp_path / "shards").dataset()
    dataset = local.dataset("x")
    assert names.index_path("train").read_bytes() == dataset.index_path("train").read_bytes()
    assert names.images_sha256() == dataset.images_sha256() == found.images_sha256
    assert names.content.class_names == dataset.content.class_names == ["a", "b", "c"]
    assert names.content.sources_sha256 == dataset.content.sources_sha256
    assert names.default_image_size == dataset.default_image_size
    assert found.fingerprint == artifact_of(expected).fingerprint
    here, there = (open_representations(Workspace(tmp_path / w)) for w in ("shards", "local"))
    assert here.paths == there.paths and here.labels.tolist() == there.labels.tolist()
    np.testing.assert_allclose(here.array[:], there.array[:], rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(here["2.tar/0020.png"], here.array[5])
    with h5py.File(found.path / "00003-2.h5") as file:
        np.testing.assert_array_equal(file["representations"][:], here.array[5:])
    with open(found.path / "00003-2.csv") as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["2.tar/0020.png"]

    both = Workspace(tmp_path / "shards")
    convert(both, Convert(tars, **options), lambda line: None)
    again = embed_priors(both, Embed("x", **PRIOR), lambda line: None)
    assert again.cached and isinstance(again, EmbedResult)
    assert artifact_of(again).path == found.path
    shapes = [
        make_targets(w, r, 3, None, lambda line: None).manifest.content["shape"]
        for w, r in ((both, artifact_of(again)), (local, artifact_of(expected)))
    ]
    assert shapes[0] == shapes[1]


def test_names_without_images_are_searched_ranked_and_embedded_again(tmp_path: Path, tars: Path):
    workspace = Workspace(tmp_path / "w")
    first = embed_url(workspace.root, f"file://{tars}/*.tar")
    image = tmp_path / "0010.png"
    image.write_bytes(png(10))
    request = {"dataset": "tars-shards", "count": 1}
    found = neighbors(workspace, Neighbors(image, **request), lambda line: None)
    assert found.neighbors[0].path == "1.tar/0010.png"  # type: ignore[union-attr]
    assert found.neighbors[0].class_name == "c"  # type: ignore[union-attr]
    ranking = rank(workspace, Rank())
    assert ranking.num_images == 6
    assert format_ranking(ranking).endswith(f"next: `{ranking.convert}`")
    assert embed_url(workspace.root, f"file://{tars}/*.tar").cached
    again = embed_url(workspace.root, "tars-shards", image_size=64)
    assert not again.cached and again.names == first.names
    assert len(workspace.datasets()) == 1 and len(workspace.representations()) == 2
    run_rela("--workspace", workspace.root, *shlex.split(str(ranking.convert))[1:])


def test_a_killed_job_repeats_only_its_unfinished_shard(
    tmp_path: Path, tars: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = files_of(artifact_of(embed_url(tmp_path / "whole", f"file://{tars}")))
    encoded: list[object] = []

    def dies(_: object, work: object, tasks: list[object]) -> Iterator[object]:
        encoded.append(tasks)
        if len(encoded) == 4:
            raise KeyboardInterrupt
        return map(work, tasks)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("rela.data.beton.writer.WorkerPool.map", dies)
        with pytest.raises(KeyboardInterrupt):
            embed_url(tmp_path / "parts", f"file://{tars}", shard="0/1")
        begun = len(encoded)
        half = embed_url(tmp_path / "halves", f"file://{tars}", shard="0/2")
        assert half.artifact is None and half.num_embedded == 3
        encoded[:] = [None] * 4
        found = artifact_of(embed_url(tmp_path / "parts", f"file://{tars}"))
        assert len(encoded) - 4 < begun
    assert files_of(found) == expected
    other = artifact_of(embed_url(tmp_path / "halves", f"file://{tars}", shard="1/2"))
    assert files_of(other) == expected


CHANGED: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "under another name": (lambda tars: None, 0, "reused 6 of 6 rows; 0 images are embedded"),
    "fewer": (lambda tars: (tars / "1.tar").unlink(), 0, "reused 4 of 4 rows; 0 images are embedded"),
    "more": (
        lambda tars: shard(tars / "3.tar", labelled(29, ["b", "b"])),
        1,
        "reused 6 of 8 rows; 2 images are embedded",
    ),
    "in other shards": (
        lambda tars: (
            (tars / "0.tar").unlink(), shard(tars / "9.tar", labelled(1, ["b", "a", "b"]))
        ),
        1,
        "reused 5 of 6 rows; 1 image is embedded",
    ),
}  # fmt: skip


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of every forward pass."""
    seen, features = list[int](), Embedder.features

    def counted(self: Embedder, images: object) -> object:
        seen.append(len(images))  # type: ignore[arg-type]
        return features(self, images)  # type: ignore[arg-type]

    monkeypatch.setattr(Embedder, "features", counted)
    return seen


@pytest.mark.parametrize("how", CHANGED)
@pytest.mark.parametrize("first", ["shards", "a data set"])
def test_rows_that_exist_are_taken_by_shards(
    tmp_path: Path, tars: Path, passes: list[int], how: str, first: str
):
    change, num_new, says = CHANGED[how]
    here, options = tmp_path / "here", {"engine": "eager", "batch_size": 4}
    if first == "shards":
        embed_url(here, f"file://{tars}", **options)
    else:
        named = {"name": "x", "workers": 1, "on_bad_image": "skip", "val_fraction": 0.0}
        convert(Workspace(here), Convert(tars, **named), lambda line: None)
        embed_url(here, "x", **options)
    changed = shutil.copytree(tars, tmp_path / "elsewhere/tars")
    change(changed)
    passes.clear()
    said = list[str]()
    request = Embed(f"file://{changed}", **PRIOR | options)
    found = artifact_of(embed_priors(Workspace(here), request, said.append))  # type: ignore[arg-type]
    assert says in said and passes == [4] * num_new
    fresh = embed_url(tmp_path / "fresh/elsewhere", f"file://{changed}", **options)
    assert rows_of(found) == rows_of(artifact_of(fresh))
    assert found.fingerprint == artifact_of(fresh).fingerprint


def rows_of(artifact: Representations) -> bytes:
    return artifact.matrix().values[:].tobytes()


def test_a_data_set_takes_rows_of_shards(tmp_path: Path, tars: Path, passes: list[int]):
    here, options = tmp_path / "here", {"engine": "eager", "batch_size": 4}
    embed_url(here, f"file://{tars}", **options)
    passes.clear()
    said = list[str]()
    for workspace in (here, tmp_path / "fresh"):
        named = {"name": "x", "workers": 1, "val_fraction": 0.0}
        convert(Workspace(workspace), Convert(tars / "[02].tar", **named), lambda line: None)
        request = Embed("x", **PRIOR | options)
        found = artifact_of(embed_priors(Workspace(workspace), request, said.append))  # type: ignore[arg-type]
        if workspace == here:
            expected = found.file.read_bytes()
            assert not passes and "reused 4 of 4 rows from tars-shards-train-" in "".join(said)
    assert found.file.read_bytes() == expected and passes == [4]


REFUSED = {
    "embed file://{0} --prior resnet18 --prior resnet34": "one --prior at one --layer",
    "embed file://{0} --prior random:shufflenet_v2_x0_5 --crops 2": "--crops does not apply to shards",
    "embed file://{0} --prior random:shufflenet_v2_x0_5 --split val": "--split does not apply to shards",
}


@pytest.mark.parametrize(("line", "words"), REFUSED.items())
def test_mistakes(rela: object, tmp_path: Path, tars: Path, line: str, words: str):
    assert_refused(tmp_path, line.format(tars), 2, [words])


def test_training_needs_the_images(rela: object, tmp_path: Path, tars: Path):
    embed_url(tmp_path / "workspace", f"file://{tars}")
    line = (
        "train tars-shards --prior random:shufflenet_v2_x0_5-seed0@32px --model shufflenet_v2_x0_5"
    )
    assert_refused(tmp_path, line, 2, ["stayed in their shards", f"rela convert file://{tars}"])


def test_stacked_rows_are_those_of_one_array():
    pieces = [np.arange(n * 3, dtype=np.float32).reshape(n, 3) + 100 * n for n in (4, 1, 7)]
    whole, stacked = np.concatenate(pieces), StackedRows(pieces)
    assert (stacked.shape, stacked.dtype, len(stacked)) == (whole.shape, whole.dtype, len(whole))
    rng = np.random.default_rng(0)
    asked = [
        0, -1, 4, np.int64(5), slice(None), slice(2, 9), slice(4, 5), slice(9, 2), slice(10, 99),
        slice(1, 11, 3), rng.integers(-12, 12, 20), [3, 4], np.array([], int), whole[:, 0] > 210,
    ]  # fmt: skip
    for rows in asked:
        np.testing.assert_array_equal(stacked[rows], whole[rows], err_msg=str(rows))
    np.testing.assert_array_equal(np.asarray(stacked), whole)
    for bad in (12, [12]):
        with pytest.raises(IndexError):
            stacked[bad]


def run_ray_example(tars: Path, output: Path) -> str:
    line = (
        f"x file://{tars}/*.tar file://{output} --prior random:shufflenet_v2_x0_5 --image-size 32"
    )
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", line.split())
        runpy.run_path(str(REPOSITORY / "examples/embed_with_ray.py"), run_name="__main__")
    return printed.getvalue()


def ray_in_this_process() -> ModuleType:
    """What the example uses of Ray; a task runs when it is made."""
    ray = ModuleType("ray")

    def remote(**_: object) -> Callable[[Callable[..., Any]], Any]:
        return lambda work: SimpleNamespace(options=lambda **_: SimpleNamespace(remote=work))

    vars(ray).update(
        remote=remote, wait=lambda tasks: (tasks[:1], tasks[1:]), get=lambda done: done
    )
    return ray


@pytest.mark.parametrize("is_real", [
    False,
    pytest.param(True, marks=pytest.mark.skipif(
        "RELA_TEST_RAY" not in os.environ, reason="starts Ray, for 20 s or more: RELA_TEST_RAY=1"
    )),
])  # fmt: skip
def test_the_example_for_ray(tmp_path: Path, tars: Path, is_real: bool):
    """A file of features for each shard, those that are there left out."""
    (tars / "1b.tar").unlink()  # a shard of bad images alone ends a task
    expected = artifact_of(embed_url(tmp_path / "w", f"file://{tars}"))
    with pytest.MonkeyPatch.context() as patch:
        if not is_real:
            patch.setitem(sys.modules, "ray", ray_in_this_process())
        printed = run_ray_example(tars, tmp_path / "features")
        assert sorted(line.rpartition("/")[2] for line in printed.splitlines()) == [
            "0.tar: 3 images", "1.tar: 2 images", "2.tar: 1 images"
        ]  # fmt: skip
        assert run_ray_example(tars, tmp_path / "features") == ""
    for number, (shard_rows, name) in enumerate(zip(expected.content.shards, "012", strict=True)):
        with (
            h5py.File(tmp_path / f"features/{name}.h5") as found,
            h5py.File(expected.path / shard_rows.file) as file,
        ):
            np.testing.assert_array_equal(
                found["representations"], file["representations"], str(number)
            )


def test_converted_shards_with_held_out_images_are_other_images(tmp_path: Path, tars: Path):
    url = f"file://{tars}/[012].tar"
    made = convert(Workspace(tmp_path), Convert(url, workers=1), lambda line: None).artifact
    assert made.num_images("train") < made.num_images() == 6
    found = embed_url(tmp_path, url)
    assert found.names.parent.name == "tars-shards" != made.name
    assert artifact_of(found).content.shape[0] == 6
