"""Data sets of Hugging Face: as `datasets` writes them, where it is installed, else as pyarrow does.

Covers: `save_to_disk` of one split and of several, Parquet as on the Hub, in row groups of any size;
columns by type and by option; class names; rows without bytes; the same betons from all of them and for any
number of workers; names that lead out, tables that are damaged, and extension types that would run code.
"""

import contextlib
import io
import json
import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pytest
from command_line import run_rela
from opened import open_as, paths_and_labels
from pictures import picture, save_tree
from PIL import Image

from rela.errors import ChoiceError, DataError
from rela.sources import open_source
from rela.sources.image_file import BadImageError
from rela.sources.pixels import decode_image
from rela.sources.source import ImageSource, SourceOptions

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

_NAMES = ["cat", "dog", "emu"]
_FEATURES: dict[str, Any] = {
    "image": {"_type": "Image"},
    "label": {"names": _NAMES, "_type": "ClassLabel"},
}
_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
opened = partial(open_as, "huggingface")
png = partial(pictures.png, height=14, width=9)


def table(seeds: range, features: dict[str, Any] | None = None, **columns: list[Any]) -> Any:
    """Images and labels seed % 3 as `datasets` keeps them; `columns` replaces or adds some."""
    images = [{"bytes": png(seed), "path": f"{seed}.png"} for seed in seeds]
    found = {
        "image": pa.array(images, _IMAGE), "label": pa.array([s % 3 for s in seeds], pa.int64())
    } | {name: pa.array(values) for name, values in columns.items()}  # fmt: skip
    info = json.dumps({"info": {"features": _FEATURES if features is None else features}})
    return pa.table(found).replace_schema_metadata({"huggingface": info})


def save_arrow(folder: Path, *tables: Any, **options: Any) -> Path:
    """A folder as `Dataset.save_to_disk` leaves it, each table one file in batches of 3 rows."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05}-of-{len(tables):05}.arrow" for i in range(len(tables))]
    for name, found in zip(names, tables, strict=True):
        with pa.ipc.new_stream(folder / name, found.schema, **options) as writer:
            writer.write_table(found, max_chunksize=3)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def save_dict(folder: Path, **splits: Any) -> Path:
    for name, found in splits.items():
        save_arrow(folder / name, found)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


def save_parquet(path: Path, found: Any, rows: int = 4, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(found, path, row_group_size=rows, **options)
    return path


def assert_holds(source: ImageSource, split: str, seeds: range) -> None:
    assert [label for _, label in paths_and_labels(source, split)] == [seed % 3 for seed in seeds]
    for seed, sample in zip(seeds, source.splits[split], strict=True):
        np.testing.assert_array_equal(decode_image(sample.read(source.root)), picture(seed, 14, 9))


def test_a_saved_data_set_is_read_file_by_file(tmp_path: Path):
    source = opened(save_arrow(tmp_path / "set", table(range(8)), table(range(8, 10))))
    assert_holds(source, "train", range(10))
    assert source.class_names == _NAMES and list(source.splits) == ["train"]
    names = [sample.path for sample in source.splits["train"]]
    assert names[7:9] == ["data-00000-of-00002.arrow/7", "data-00001-of-00002.arrow/0"]


def test_a_saved_dictionary_gives_train_and_val(tmp_path: Path):
    names = ("train", "test", "validation")
    tables = {name: table(range(i, i + 4)) for i, name in enumerate(names)}
    source = opened(save_dict(tmp_path / "set", **tables))
    assert_holds(source, "train", range(4))
    assert_holds(source, "val", range(2, 6))
    assert (source.val_name, source.ignored_splits) == ("validation", ["test"])
    assert source.splits["val"][0].path == "validation/data-00000-of-00001.arrow/0"


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_parquet_is_read_with_any_row_groups(tmp_path: Path, rows: int, compression: str):
    data, options = tmp_path / "set" / "data", {"rows": rows, "compression": compression}
    save_parquet(data / "train-00000-of-00002.parquet", table(range(200)), **options)
    save_parquet(data / "train-00001-of-00002.parquet", table(range(200, 210)), **options)
    save_parquet(data / "test-00000-of-00001.parquet", table(range(5)), **options)
    save_tree(tmp_path / "set", {"assets/cover.png": (14, 9)})
    source = opened(tmp_path / "set")
    assert_holds(source, "train", range(210))
    assert_holds(source, "val", range(5))
    assert source.splits["train"][203].path == "data/train-00001-of-00002.parquet/3"
    for row in (170, 3, 209, 0, 64):  # in any order
        assert source.splits["train"][row].read(source.root) == png(row)


def test_a_file_and_a_pattern_of_files_are_sources_too(tmp_path: Path):
    for number in range(3):
        save_parquet(tmp_path / f"part{number}.parquet", table(range(number, number + 1)))
    assert_holds(opened(tmp_path / "part1.parquet"), "train", range(1, 2))
    assert_holds(opened(tmp_path / "part[12].parquet"), "train", range(1, 3))
    assert_holds(opened(tmp_path), "train", range(3))


def test_betons_are_the_same_from_all_of_them(tmp_path: Path):
    save_arrow(tmp_path / "arrow", table(range(70)))
    save_parquet(tmp_path / "parquet" / "train.parquet", table(range(70)), rows=50)
    betons = []
    for name, workers in (("arrow", 1), ("parquet", 1), ("parquet", 2)):
        words = (
            "--workspace",
            tmp_path / f"ws{workers}",
            "convert",
            tmp_path / name,
            "--val-fraction",
            0,
        )
        assert "written to" in run_rela(*words, "--workers", workers).stdout
        assert "already exists" in run_rela(*words, "--workers", workers).stdout
        betons.append((tmp_path / f"ws{workers}/datasets/{name}/train.beton").read_bytes())
    assert betons[0] == betons[1] == betons[2]


def test_many_readers_at_once_get_what_each_asked_for(tmp_path: Path):
    save_parquet(tmp_path / "train.parquet", table(range(300)), rows=120)
    source = opened(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda sample: sample.read(source.root), source.splits["train"]))
    assert found == [png(seed) for seed in range(300)]


# Columns


def test_of_several_columns_one_is_chosen(tmp_path: Path):
    fine = {"names": ["x", "y"], "_type": "ClassLabel"}
    features = {"image": {"_type": "Image"}, "label": _FEATURES["label"], "fine": fine}
    found = table(range(4), features, fine=[0, 1, 0, 1])
    path = save_parquet(tmp_path / "a.parquet", found)
    words = "label columns label, fine; choose one with --label-column"
    with pytest.raises(ChoiceError, match=words):
        opened(path)
    source = opened(path, label_column="fine")
    assert source.class_names == ["x", "y"]
    assert [sample.label for sample in source.splits["train"]] == [0, 1, 0, 1]
    with pytest.raises(ChoiceError, match="no column 'coarse', only image, label, fine"):
        opened(path, label_column="coarse")
    with pytest.raises(ChoiceError, match="'label' holds no bytes of image files"):
        opened(path, label_column="fine", image_column="label")
    words = ("--workspace", tmp_path / "ws", "convert", path, "--label-column", "fine")
    assert "2 classes" in run_rela(*words, "--workers", 1).stdout


def test_tables_of_others_need_no_features(tmp_path: Path):
    jpeg = [png(seed) for seed in range(4)]
    for name, columns, names in (
        ("text", {"jpg": jpeg, "label": ["b", "a", "b", "b"]}, ["a", "b"]),
        ("numbers", {"jpg": jpeg, "label": [7, 3, 7, 7]}, ["3", "7"]),
        ("none", {"jpg": jpeg, "caption": ["x"] * 4}, []),
    ):
        source = opened(save_parquet(tmp_path / f"{name}.parquet", pa.table(columns)))
        assert source.class_names == names
        assert [sample.read(source.root) for sample in source.splits["train"]] == jpeg
    path = save_parquet(tmp_path / "no.parquet", pa.table({"x": [1], "y": ["z"]}))
    with pytest.raises(ChoiceError, match="no column of images, only x, y"):
        opened(path)
    path = save_parquet(tmp_path / "float.parquet", pa.table({"a": jpeg, "label": [0.5] * 4}))
    with pytest.raises(ChoiceError, match="'label' holds double"):
        opened(path)


@pytest.mark.parametrize("saved", [save_arrow, save_parquet])
def test_rows_without_bytes_are_bad_images(tmp_path: Path, saved: Any):
    (tmp_path / "1.png").write_bytes(png(0))
    rows = [{"bytes": png(0), "path": None}, {"bytes": None, "path": str(tmp_path / "1.png")}, None]
    found = table(range(3)).set_column(0, "image", pa.array(rows, _IMAGE))
    source = opened(saved(tmp_path / "set.parquet", found))
    assert source.splits["train"][0].read(source.root) == png(0)
    for sample in source.splits["train"][1:]:
        with pytest.raises(BadImageError, match="holds no bytes for it"):
            sample.read(source.root)
    words = (
        "--workspace",
        tmp_path / "ws",
        "convert",
        tmp_path / "set.parquet",
        "--val-fraction",
        0,
    )
    lines = run_rela(*words, exit_code=65).output.splitlines()
    assert len(lines) == 3 and all("holds no bytes for it" in line for line in lines[1:])


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1, 9], "the label 9, and there are 3 classes"), ([0, None, 1], "1 of 3 images have no label")],
)  # fmt: skip
def test_labels_have_to_fit(tmp_path: Path, labels: list[Any], message: str):
    path = save_arrow(tmp_path / "set", table(range(3), label=labels))
    with pytest.raises(DataError, match=message):
        opened(path)


def test_hidden_labels_make_it_unlabelled(tmp_path: Path):
    source = opened(save_arrow(tmp_path / "set", table(range(3), label=[-1, -1, -1])))
    assert not source.labelled and {s.label for s in source.splits["train"]} == {-1}


def test_files_of_one_split_agree_and_lie_together(tmp_path: Path):
    other = {**_FEATURES, "label": {"names": ["dog", "cat", "emu"], "_type": "ClassLabel"}}
    save_parquet(tmp_path / "a" / "train-0.parquet", table(range(3)))
    save_parquet(tmp_path / "a" / "train-1.parquet", table(range(3), other))
    with pytest.raises(DataError, match="other columns or classes"):
        opened(tmp_path / "a")
    save_parquet(tmp_path / "b" / "train-0.parquet", table(range(3)))
    with pytest.raises(ChoiceError, match=r"train files in 2 folders, .*/a, .*/b"):
        opened(tmp_path)


def test_without_pyarrow_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = save_parquet(tmp_path / "a.parquet", table(range(1)))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ChoiceError, match=r"pip install 'rela\[hf\]'"):
        opened(path)


# What is hostile or damaged


@pytest.mark.parametrize("name", ["../other.arrow", "/etc/passwd", "a/b.arrow", "..", "", "x\0", 3])
def test_listed_names_outside_the_folder_are_refused(tmp_path: Path, name: Any):
    folder = save_arrow(tmp_path / "set", table(range(1)))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(DataError, match="lists no files in its folder"):
        opened(folder)
    folder = save_dict(tmp_path / "dict", train=table(range(1)))
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": [name]}))
    with pytest.raises(DataError, match="lists no splits"):
        opened(folder)


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", "[" * 100_000, '{"_data_files": 3}', "\xff"])
def test_odd_json_is_refused_in_one_line(tmp_path: Path, text: str):
    folder = save_arrow(tmp_path / "set", table(range(1)))
    (folder / "state.json").write_text(text)
    with pytest.raises(DataError, match="set") as caught:
        opened(folder)
    assert "\n" not in str(caught.value)


def test_a_compressed_arrow_file_is_refused_with_a_remedy(tmp_path: Path):
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pytest.raises(DataError, match="compressed"):
        opened(save_arrow(tmp_path / "set", table(range(9)), options=options))


@pytest.mark.parametrize("name", ["*.arrow", "state.json"])
@pytest.mark.timeout(60)
def test_pipes_do_not_block(tmp_path: Path, name: str):
    folder = save_arrow(tmp_path / "set", table(range(9)))
    (path,) = folder.rglob(name)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="set"):
        open_source(folder, "huggingface", SourceOptions())


@pytest.mark.parametrize("saved", [save_arrow, save_parquet])
def test_damaged_tables_are_refused_in_one_line(tmp_path: Path, saved: Any):
    saved(tmp_path / "set.parquet", table(range(40)))
    (path,) = [p for p in (tmp_path / "set.parquet", *tmp_path.rglob("*.arrow")) if p.is_file()]
    sound, random = path.read_bytes(), np.random.default_rng(0)
    changed = [sound[: int(share * len(sound))] for share in (0, 0.01, 0.3, 0.9, 0.99)]
    for _ in range(150):
        content = bytearray(sound)
        place = int(random.integers(len(sound) // 50 if saved is save_arrow else 0, len(sound)))
        place = place if random.random() < 0.5 else len(sound) - 1 - place % 3000
        content[place : place + 4] = random.bytes(4)
        changed.append(bytes(content))
    refused = 0
    for content in changed:
        path.write_bytes(content)
        try:
            source = opened(tmp_path / "set.parquet")
            for sample in source.splits["train"]:
                try:
                    decode_image(sample.read(source.root))
                except BadImageError:
                    refused += 1
        except (DataError, ChoiceError) as error:
            refused += "\n" not in str(error)
    assert refused > 10


def test_extension_types_run_nothing(tmp_path: Path):
    """What executed pickles before pyarrow 14.0.1: the type is unknown, its storage is data."""
    trace = tmp_path / "trace"
    harmful = b"cos\nsystem\n(S'touch " + str(trace).encode() + b"'\ntR."
    field = pa.field("label", pa.int64(), metadata={
        "ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": harmful,
    })  # fmt: skip
    found = table(range(3))
    found = found.set_column(1, field, found.column(1))
    for path in (save_parquet(tmp_path / "a.parquet", found), save_arrow(tmp_path / "b", found)):
        with contextlib.suppress(ChoiceError, DataError):
            opened(path)
        assert not trace.exists()
    pickle.loads(harmful)
    assert trace.exists()


# The real thing


@pytest.mark.filterwarnings("ignore")
def test_what_datasets_writes_is_read(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    from datasets.table import embed_table_storage

    save_tree(tmp_path / "files", {f"{seed}.png": (14, 9) for seed in range(12)})
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=_NAMES)}
    features = datasets.Features(kinds)

    def split(seeds: range) -> Any:
        paths = [str(tmp_path / "files" / f"{seed}.png") for seed in seeds]
        found = {"image": paths, "label": [seed % 3 for seed in seeds]}
        return datasets.Dataset.from_dict(found, features=features)

    whole = datasets.DatasetDict({"train": split(range(9)), "test": split(range(9, 12))})
    whole.save_to_disk(tmp_path / "saved", num_shards={"train": 2, "test": 1})
    for name, found in whole.items():
        embedded = found.with_format("arrow").map(embed_table_storage, batched=True)
        path = tmp_path / "hub" / "data" / f"{name}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        embedded.with_format(None).to_parquet(path)
    whole["train"].shuffle(seed=1).select(range(5)).save_to_disk(tmp_path / "chosen")
    for name in ("saved", "hub"):
        source = opened(tmp_path / name)
        assert source.class_names == _NAMES
        assert_holds(source, "train", range(9))
        assert_holds(source, "val", range(9, 12))
    again = datasets.load_from_disk(tmp_path / "chosen")
    source = opened(tmp_path / "chosen")
    for row, sample in zip(again, source.splits["train"], strict=True):
        found = decode_image(sample.read(source.root))
        np.testing.assert_array_equal(found, np.asarray(row["image"]))
        assert sample.label == row["label"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", [3, 6])
def test_a_photo_with_a_rotation_is_as_datasets_shows_it(tmp_path: Path, number: int):
    datasets = pytest.importorskip("datasets")
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = number
    Image.fromarray(picture(1, 20, 12)).save(file, "JPEG", exif=exif)
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=_NAMES)}
    rows = {"image": [{"bytes": file.getvalue(), "path": None}], "label": [0]}
    made = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    made.to_parquet(tmp_path / "photos.parquet")
    source = opened(tmp_path / "photos.parquet")
    shown = np.asarray(made[0]["image"])
    assert shown.shape == ((12, 20, 3) if number == 6 else (20, 12, 3))
    found = decode_image(source.splits["train"][0].read(source.root))
    np.testing.assert_array_equal(found, shown)
