"""Shards behind a URL: as from a local copy, resumable, in one line if they cannot be had.

The expected data sets are those of local shards, which tests/rela/sources compares with Pillow. Stores are
folders behind file://, memory, and a real S3 server (moto's) in this process.
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from refusals import assert_refused
from tar_shards import labelled, png, shard

from rela.errors import UnavailableError
from rela.pipeline.errors import StorageError
from rela.sources.remote import Shard, Shards, list_shards
from rela.stages import convert as conversion
from rela.stages.commandline.process import LATE
from rela.stages.convert import convert
from rela.stages.requests import Convert
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.status import status
from rela.stages.workspace.workspace import Workspace


@pytest.fixture(autouse=True)
def encode_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool for every shard would take seconds."""
    monkeypatch.setattr(
        "rela.data.beton.writer.WorkerPool.map", lambda _, work, tasks: map(work, tasks)
    )


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards that are copied from the store."""
    names, fetch = list[str](), Shards.fetch

    def noted(self: Shards, found: Shard, folder: Path) -> Path:
        names.append(found.name)
        return fetch(self, found, folder)

    monkeypatch.setattr(Shards, "fetch", noted)
    return names


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Four shards in one folder; the classes of no two are the same, one image of the last is bad."""
    folder = tmp_path / "tars"
    for number, labels in enumerate((["b", "a"], ["c", "b", "c"], ["a"])):
        shard(folder / f"train-{number:03}.tar", labelled(10 * number, labels))
    shard(
        folder / "deep/val-000.tar",
        [*labelled(90, ["b", "c"]), ("bad.png", b"?"), ("bad.cls", b"a")],
    )
    return folder


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Two Parquet files with a list of classes that is not in alphabetical order."""
    for number, label in enumerate((1, 0)):
        images = [{"bytes": png(5 * number + i), "path": None} for i in range(3)]
        features = (
            '{"info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", '
        )
        features += '"names": ["z", "y", "x"]}}}}'
        table = pa.table({"image": images, "label": [label] * 3})
        (tmp_path / "tables").mkdir(exist_ok=True)
        parquet.write_table(
            table.replace_schema_metadata({"huggingface": features}),
            tmp_path / "tables" / f"train-{number}.parquet",
        )
    return tmp_path / "tables"


def convert_here(workspace: Path, source: str | Path, name: str = "set") -> DataSet:
    options = {"name": name, "workers": 1, "on_bad_image": "skip"}
    return convert(Workspace(workspace), Convert(source, **options), lambda line: None).artifact


def assert_same(one: DataSet, other: DataSet) -> None:
    assert one.fingerprint == other.fingerprint
    assert one.manifest.content == other.manifest.content
    names = {path.name for path in one.path.iterdir()}
    assert names == {path.name for path in other.path.iterdir()}
    for name in names - {"manifest.json"}:
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes()


@pytest.mark.parametrize(("kind", "pattern"), [
    ("tars", ""), ("tars", "/**/*.tar"), ("tars", "/train-{000..002}.tar"), ("tables", "/*.parquet"),
])  # fmt: skip
def test_a_url_gives_the_data_set_of_its_local_copy(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, pattern: str, fetched: list[str]
):
    folder = request.getfixturevalue(kind)
    expected = convert_here(tmp_path / "local", f"{folder}{pattern}")
    assert not fetched
    found = convert_here(tmp_path / "remote", f"file://{folder}{pattern}")
    assert_same(found, expected)
    assert sorted(fetched) == sorted({row["path"].rpartition("/")[0] for row in rows_of(expected)})
    names = {path.name for path in (tmp_path / "remote").rglob("*") if path.is_file()}
    assert names == {path.name for path in (tmp_path / "local").rglob("*") if path.is_file()}
    convert_here(tmp_path / "remote", f"file://{folder}{pattern}")
    assert len(fetched) == len(set(fetched)), "a second call reads no shard again"


def rows_of(dataset: DataSet) -> list[dict[str, str]]:
    return [row for split in dataset.splits for row in dataset.index(split)]


def test_a_killed_job_repeats_only_its_unfinished_shard(
    tmp_path: Path, tars: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
):
    expected = convert_here(tmp_path / "local", tars)
    with monkeypatch.context() as patch:
        writes = []

        def dies(*arguments: object) -> Iterator[object]:
            writes.append(arguments)
            if len(writes) == 3:
                raise KeyboardInterrupt
            return map(*arguments[1:])  # type: ignore[arg-type]

        patch.setattr("rela.data.beton.writer.WorkerPool.map", dies)
        with pytest.raises(KeyboardInterrupt):
            convert_here(tmp_path / "remote", f"file://{tars}")
    left = status(Workspace(tmp_path / "remote")).resumable
    assert [(row["what"], row["done"]) for row in left] == [
        ("shards of data set set", "2 of 4 parts")
    ]
    fetched.clear()
    assert_same(convert_here(tmp_path / "remote", f"file://{tars}"), expected)
    assert len(fetched) == 2
    assert not status(Workspace(tmp_path / "remote")).resumable


def test_parts_of_a_job_that_fails_at_its_very_end_are_removed_by_the_next(
    tmp_path: Path, tars: Path, monkeypatch: pytest.MonkeyPatch
):
    def fails(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        raise StorageError("the folder of the data set, which is there, cannot be synchronized")

    write = conversion._write
    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_write", fails)
        with pytest.raises(StorageError):
            convert_here(tmp_path / "remote", f"file://{tars}")
    convert_here(tmp_path / "remote", f"file://{tars}")
    assert not list((tmp_path / "remote" / "representations").glob(".*"))


def test_a_full_disk_here_is_no_failure_of_the_store(tmp_path: Path, tars: Path):
    shards = list_shards(f"file://{tars}/train-*.tar")
    here = tmp_path / "here"
    here.mkdir()
    (here / shards.shards[0].name).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        shards.fetch(shards.shards[0], here)


def test_a_shard_that_changes_is_another_one(tmp_path: Path, tars: Path, fetched: list[str]):
    url = f"file://{tars}/train-*.tar"
    first = convert_here(tmp_path, url, "a")
    os.utime(tars / "train-001.tar", (1, 1))  # the same content: another version, the same data set
    assert convert_here(tmp_path, url, "b").fingerprint == first.fingerprint and len(fetched) == 6
    [found, *_] = list_shards(url).shards
    stale = Shard(found.name, found.path, found.num_bytes - 1, found.version)
    with pytest.raises(UnavailableError, match="has changed since it was listed"):
        list_shards(url).fetch(stale, tmp_path)


def test_shards_in_memory_have_a_version():
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://rela-test/a.tar", "wb") as file:
        file.write(b"1")
    [found] = list_shards("memory://rela-test/*.tar").shards
    assert (found.name, found.num_bytes) == ("a.tar", 1) and found.version.startswith("created ")


def test_a_real_s3_server(tmp_path: Path, tars: Path, monkeypatch: pytest.MonkeyPatch):
    # pip takes minutes to find versions of both that go together: not in the extra `test`
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    import boto3

    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        store = boto3.client("s3")
        store.create_bucket(Bucket="bucket")
        for path in tars.glob("*.tar"):
            store.upload_file(str(path), "bucket", f"set/{path.name}")
        [first, *_] = list_shards("s3://bucket/set/*.tar").shards
        assert first.version.startswith("ETag ")
        found = convert_here(tmp_path / "remote", "s3://bucket/set/train-{000..002}.tar")
        assert_same(found, convert_here(tmp_path / "local", tars / "train-*.tar"))
        assert found.source == "s3://bucket/set/train-{000..002}.tar"
    finally:
        server.stop()


REFUSED = {
    "file://{0}/none.tar": (74, ["found nothing there"]),
    "file://{0}/*.zip": (65, ["found none", "pattern"]),
    "file://{0}/train-{{000..009}}.tar": (65, ["7 of 10 shards are missing", "train-003.tar"]),
    "nothing://{0}/a.tar": (2, ["Protocol not known: nothing", "s3://BUCKET/"]),
    "file://{0}/*.tar --format csv": (2, ["--format csv", "copy", "here"]),
    "file://{0}/*.tar --label-column x": (2, ["--label-column does not apply to file://"]),
    "file://{0}/deep/*.tar": (65, ["deep/*.tar", "val-000.tar/bad.png", "--on-bad-image skip"]),
    "file://{0}/broken/*.tar": (65, ["file://", "broken/a.tar", "damaged"]),
}


@pytest.mark.parametrize(("line", "status", "words"), [(k, *v) for k, v in REFUSED.items()])
def test_mistakes(
    rela: object, tmp_path: Path, tars: Path, line: str, status: int, words: list[str]
):
    (tars / "broken").mkdir()
    (tars / "broken/a.tar").write_bytes(b"no tar" * 200)
    line = f"convert {line.format(tars)} --workers 1"
    assert_refused(tmp_path, line, status, words)


def test_images_of_an_undeclared_range_need_their_bits(rela: object, tmp_path: Path, tars: Path):
    from PIL import Image

    file = io.BytesIO()
    Image.new("I;16", (4, 4), 1000).save(file, "PNG")
    shard(tars / "x-0.tar", [("a.png", file.getvalue())])
    line = f"convert file://{tars}/x-0.tar --workers 1"
    assert_refused(tmp_path, line, 2, ["more than 8 bits", "--bits 10"])


def test_no_file_system_is_imported_late():
    """fsspec asks for a class, which the stand-in of one is not."""
    from fsspec.registry import known_implementations

    modules = {each["class"].partition(".")[0] for each in known_implementations.values()}
    assert not modules & {name.partition(".")[0] for name in LATE}
