"""`rela export --to parquet | npy | faiss`: features with paths and labels.

- what the printed lines read are the cached features, for pandas, plain NumPy and faiss, in any number of
  blocks, with odd names and without labels; a search by faiss is one by `rela neighbors`;
- of a prior, too, of every split that is embedded;
- a full disk leaves nothing, an interrupted one nothing that looks complete; a folder replaces another
  export only with --force, and nothing else.
"""

import csv
import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from command_line import Rela, read_json
from finished_runs import finished_run
from pictures import picture
from PIL import Image

from rela.errors import ChoiceError
from rela.representations import feature_files
from rela.stages.export import destination
from rela.stages.priors.find import open_representations
from rela.stages.workspace.workspace import Workspace

PRIOR = "random:shufflenet_v2_x0_5"
NAME = "images-random-shufflenet_v2_x0_5-seed0@32px"
OUTPUTS = {"parquet": f"{NAME}-features.parquet", "npy": f"{NAME}-npy", "faiss": f"{NAME}-faiss"}


@pytest.fixture
def embedded(rela: Rela, small_tree: Path, monkeypatch: pytest.MonkeyPatch) -> Rela:
    """The command line, with features of train and val; written in blocks of 5 rows."""
    for split in ("train", "val"):
        options = ("--prior", PRIOR, "--image-size", 32, "--dtype", "float32", "--split", split)
        rela("embed", small_tree, *options)
    monkeypatch.setattr(feature_files, "ROWS_PER_PART", 5)
    monkeypatch.setattr(feature_files, "_ROWS_PER_GROUP", 5)
    return rela


def cached(split: str) -> np.ndarray:
    return np.asarray(open_representations(Workspace(Path("workspace")), split=split).array)


def loaded(printed: str) -> dict[str, Any]:
    """What the printed lines define."""
    found: dict[str, Any] = {}
    exec(printed.partition("load it with:\n\n")[2].partition("\n\nnext: ")[0], found)
    return found


def test_features_of_a_prior_are_the_cached_ones_with_paths_and_labels(
    embedded: Rela, tmp_path: Path
):
    expected = np.concatenate([cached("train"), cached("val")])
    for to in ("parquet", "npy"):
        found = loaded(embedded("export", "--prior", f"{PRIOR}-seed0", "--to", to).stdout)
        assert found["features"].dtype == np.float32
        assert np.array_equal(found["features"], expected)
        assert [["ant", "bee", "cat"][n] for n in found["labels"]] == [
            path.split("/")[1] for path in found["paths"]
        ]
        assert all((tmp_path / "images" / path).is_file() for path in found["paths"])
    table = pandas.read_parquet(OUTPUTS["parquet"])
    assert list(table.columns) == ["path", "split", "label", "class", "embedding"]
    images = pandas.read_csv(Path(OUTPUTS["npy"]) / "images.csv", index_col="row")
    assert images.equals(table[images.columns].rename_axis("row"))
    assert table["split"].value_counts().to_dict() == {"train": 24, "val": 12}
    assert np.array_equal(np.stack(table["embedding"]), expected)
    about = json.loads((Path(OUTPUTS["npy"]) / "manifest.json").read_text())
    assert about["content"]["preprocessing"]["crop"] == 32
    assert set(about["file_sha256"]) == {"features.npy", "labels.npy", "images.csv"}


def test_a_search_by_faiss_finds_what_neighbors_finds(embedded: Rela):
    words = embedded("export", "--prior", f"{PRIOR}-seed0", "--to", "faiss").stdout
    assert "IndexFlatIP of features scaled to length 1" in words
    found = loaded(words)
    for query in range(3):
        image = Path("images") / found["images"][query]["path"]
        neighbors = read_json(embedded("neighbors", image, "--count", 36, "--json"))["neighbors"]
        train = [row for row in found["rows"][query] if found["images"][row]["split"] == "train"]
        assert [found["images"][row]["path"] for row in train] == [
            n["path"] for n in neighbors[: len(train)]
        ]
        assert found["similarities"][query][0] == pytest.approx(1, abs=1e-6)
    vectors = found["index"].reconstruct_n(0, 36)
    values = np.concatenate([cached("train"), cached("val")]).astype(np.float64)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, values, atol=1e-6)


def test_features_of_a_run_with_odd_names_and_no_labels(rela: Rela, images: Path, tmp_path: Path):
    finished_run(tmp_path / "workspace", "images", "shufflenet_v2_x0_5", "first")
    (tmp_path / "flat").mkdir()
    odd = b'\xff\xfe, "\xc3\xa9\r\n.png'
    for name in (b"a.png", odd):
        with open(os.path.join(os.fsencode(tmp_path / "flat"), name), "wb") as file:  # noqa: PTH118
            Image.fromarray(picture(3)).save(file, "PNG")
    rela("convert", tmp_path / "flat")
    rela("export", "--to", "npy", "--dataset", "flat")
    assert np.load("first-npy/features.npy", allow_pickle=False).dtype == np.float16
    assert np.load("first-npy/labels.npy").tolist() == [-1, -1]
    with open("first-npy/images.csv", newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert sorted(os.fsencode(row["path"]) for row in rows) == sorted([b"a.png", odd])
    assert {row["class"] for row in rows} == {""}
    rela("export", "--to", "parquet", "--dataset", "flat")
    table = pandas.read_parquet("first-features.parquet")
    assert set(table["path"]) == {"a.png", '\\xff\\xfe, "é\r\n.png'}
    assert table["class"].isna().all() and len(table["embedding"][0]) == 1024


@pytest.mark.parametrize("to", list(OUTPUTS))
def test_a_full_disk_leaves_what_was_there(
    embedded: Rela, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
):
    command = ("export", "--prior", f"{PRIOR}-seed0", "--to", to)

    def refused(*options: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(feature_files, "open", _Full, raising=False)
            [line] = embedded(*command, *options, exit_code=74).stderr.splitlines()
        assert "No space left on device" in line and "choose another --output" in line

    before = sorted(tmp_path.iterdir())
    refused()
    assert sorted(tmp_path.iterdir()) == before
    embedded(*command)
    made = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert "--force" in embedded(*command, exit_code=2).stderr
    refused("--force")
    assert {path: path.read_bytes() for path in made} == made
    assert len(list(tmp_path.iterdir())) == len(before) + 1
    embedded(*command, "--force")


class _Full:
    """A file whose disk is full after some bytes."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._file = open(*arguments, **options)  # noqa: SIM115

    def __enter__(self) -> "_Full":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: Any) -> int:
        if self._file.tell() > 20_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written: int = self._file.write(content)
        return written


def test_only_exported_folders_are_replaced(embedded: Rela, tmp_path: Path):
    command = ("export", "--prior", f"{PRIOR}-seed0", "--to", "npy", "--force")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("notes")
    embedded(*command, "--output", "mine")  # in it
    assert (tmp_path / "mine" / OUTPUTS["npy"] / "features.npy").is_file()
    (tmp_path / "mine" / OUTPUTS["npy"] / "manifest.json").unlink()
    assert "is no exported folder" in embedded(*command, "--output", "mine", exit_code=2).stderr
    embedded(*command, "--output", "other")
    embedded(*command, "--output", "other")
    names = {path.name for path in (tmp_path / "other").iterdir()}
    assert names == {"features.npy", "labels.npy", "images.csv", "manifest.json"}
    assert not list(tmp_path.glob(".*"))


def test_of_two_jobs_that_replace_a_folder_one_is_told(
    embedded: Rela, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The other publishes, or takes the old folder away, at the worst moment; nothing is left beside it."""
    command = ("export", "--prior", f"{PRIOR}-seed0", "--to", "npy", "--output", "mine", "--force")
    embedded(*command)
    publish, rename = destination.publish, os.rename

    def too_late(*arguments: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(destination, "publish", publish)
            embedded(*command)
        return publish(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(destination, "publish", too_late)
        [line] = embedded(*command, exit_code=75).stderr.splitlines()[-1:]
    assert "another job has just made" in line
    assert {path.name for path in tmp_path.iterdir()} == {"images", "mine", "workspace"}

    def taken(source: Any, target: Any) -> None:
        if Path(source).name == "mine":
            rename(source, tmp_path / "theirs")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", taken)
        embedded(*command)
    assert {path.name for path in tmp_path.iterdir()} == {"images", "mine", "theirs", "workspace"}

    def replaced_at_once(*arguments: Any) -> Any:
        made = publish(*arguments)
        rename(tmp_path / "mine", tmp_path / "set aside")
        return made

    with monkeypatch.context() as patch:
        patch.setattr(destination, "publish", replaced_at_once)
        embedded(*command)


@pytest.mark.parametrize(("package", "extra"), [("pyarrow", "hf"), ("faiss", "faiss")])
def test_without_a_package_the_command_that_installs_it_is_named(
    package: str, extra: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ChoiceError, match=rf"{package} is needed for .*pip install 'rela\[{extra}\]'"
    ):
        getattr(feature_files, f"require_{package}")()
