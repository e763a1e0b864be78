"""Archives of image folders, written with `zipfile` and `tarfile`, against the same folder.

Covers: zips and tars, compressed or not, are read as their folder would be, to the same betons; labels in
lists inside; what systems leave; links, names that lead out, encryption, bombs, damage; which tars are
WebDataset's.
"""

import io
import lzma
import resource
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pictures
import pytest
from command_line import run_rela
from opened import open_as, paths_and_labels
from pictures import save_tree

from rela.errors import DataError
from rela.sources import find_kind, open_source
from rela.sources.archives.compressed import CompressedRange
from rela.sources.archives.image_archive import ZipMember
from rela.sources.image_file import BadImageError
from rela.sources.source import SourceOptions

opened, found = partial(open_as, "archive"), paths_and_labels
png = partial(pictures.png, height=8, width=8)
Contents = dict[str, bytes]
FORMATS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]


def archive(path: Path, contents: Contents) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for number, (name, content) in enumerate(contents.items()):
                kind = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
                file.writestr(name, content, kind)
        return path
    compression = path.suffix[1:].replace("tar", "")
    with tarfile.open(path, f"w:{compression}") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def read_all(path: Path, kind: str = "auto") -> dict[str, bytes | str]:
    source = open_source(path, kind, SourceOptions())
    contents: dict[str, bytes | str] = {}
    for samples in source.splits.values():
        for sample in samples:
            try:
                contents[sample.path] = bytes(sample.read(source.root))
            except BadImageError as error:
                contents[sample.path] = str(error)
    return contents


@pytest.mark.parametrize("form", FORMATS)
def test_an_archive_is_read_as_its_folder(tmp_path: Path, form: str):
    names = {f"set/Train/{c}/{i}.png": png(ord(c) + i) for c in "ba" for i in range(3)}
    names |= {f"set/val/{i}.png": png(i) for i in range(2)}
    others = {"set/val_annotations.txt": b"0.png b\n1.png a\n", "set/Train/a/Thumbs.db": b"x"}
    others["__MACOSX/set/Train/a/._0.png"] = b"x"
    path = archive(tmp_path / f"images.{form}", {**names, **others})
    source = opened(path)
    assert source.class_names == ["a", "b"] and len(source.splits["train"]) == 6
    assert dict(found(source, "val")) == {"set/val/0.png": 1, "set/val/1.png": 0}
    assert source.num_skipped == {"Thumbs.db": 1, "__MACOSX": 1} and source.stray_files == []
    assert read_all(path) == names


@pytest.mark.parametrize("form", FORMATS)
def test_betons_are_those_of_the_folder(tmp_path: Path, form: str):
    contents = {f"{c}/{i:02}.png": png(i + 10 * ord(c)) for c in "ab" for i in range(12)}
    path = archive(tmp_path / f"images.{form}", contents)
    for name, content in contents.items():
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(content)
    for source, name in ((tmp_path / "images", "one"), (path, "two")):
        run_rela("--workspace", tmp_path / "ws", "convert", source, "--name", name, "--workers", 2)
    one, two = (tmp_path / "ws/datasets" / name for name in ("one", "two"))
    for split in ("train", "val"):
        assert (one / f"{split}.beton").read_bytes() == (two / f"{split}.beton").read_bytes()
        assert (one / f"{split}.csv").read_bytes() == (two / f"{split}.csv").read_bytes()
    words = ("--workspace", tmp_path / "ws", "convert", path, "--name", "two")
    assert "already exists" in run_rela(*words).stdout
    assert [p.name for p in tmp_path.iterdir() if p.name != "ws"] in (
        ["images", path.name], [path.name, "images"],
    )  # fmt: skip


def test_a_compressed_tar_is_read_forwards_in_any_order(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("rela.sources.archives.compressed._KEPT_BYTES", 100)
    monkeypatch.setattr("rela.sources.archives.compressed._CHUNK_BYTES", 64)
    contents = {f"{'ab'[i % 2]}/{i:02}.png": png(i) for i in range(20)}
    path = archive(tmp_path / "images.tar.gz", contents)
    samples = opened(path).splits["train"]
    assert [sample.path for sample in samples] == list(contents)  # as stored
    for sample in [*samples, *reversed(samples), *samples[::7]]:
        assert sample.read(path) == contents[sample.path]


def test_tars_of_webdataset_stay_so(tmp_path: Path):
    for name, contents, kind in (
        ("a.tar", {"x/1.png": png(0), "x/1.cls": b"0"}, "webdataset"),
        ("b.tar", {"x/1.png": png(0), "x/1.json": b"{}"}, "webdataset"),
        ("c.tar", {"1.png": png(0), "2.png": png(1)}, "webdataset"),
        ("d.tar", {"./x/1.png": png(0), "./y/2.png": png(1), "./y/notes.json": b"{}"}, "archive"),
        ("e.zip", {"x/1.png": png(0)}, "archive"),
    ):
        assert find_kind(archive(tmp_path / name, contents)) == kind, name


# What is refused


@pytest.mark.parametrize("form", FORMATS)
def test_names_outside_are_left_out_and_said(tmp_path: Path, form: str):
    path = tmp_path / f"images.{form}"
    contents = {
        "a/1.png": png(0),
        "b/1.png": png(1),
        "../evil.png": png(2),
        "/etc/evil.png": png(3),
    }
    source = opened(archive(path, contents))
    assert [p for p, _ in found(source)] == ["a/1.png", "b/1.png"]
    assert any("left out 2 files whose names lead out" in note for note in source.notes)


def test_backslashes_are_folders(tmp_path: Path):
    path = archive(
        tmp_path / "images.zip", {"a\\1.png": png(0), "b\\1.png": png(1), "..\\x.png": png(2)}
    )
    assert found(opened(path)) == [("a/1.png", 0), ("b/1.png", 1)]


def test_links_and_encrypted_files_are_bad_images(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as file:
        link = zipfile.ZipInfo("a/link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        file.writestr(link, "/etc/passwd")
        file.writestr("a/secret.png", png(0))
        file.writestr("a/rare.png", png(0), zipfile.ZIP_BZIP2)
        file.getinfo("a/secret.png").flag_bits |= 1
    reasons = read_all(tmp_path / "images.zip")
    assert "no regular file" in str(reasons["a/link.png"])
    assert "encrypted" in str(reasons["a/secret.png"]) and "rare" in str(reasons["a/rare.png"])
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        for name, kind in (("a/1.png", tarfile.SYMTYPE), ("a/2.png", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        tar.addfile(tarfile.TarInfo("b/3.png"))
    assert set(read_all(tmp_path / "images.tar").values()) == {
        "no regular file in its archive",
        b"",
    }


@pytest.mark.parametrize("size", [1 << 29, 1 << 62, 10])
def test_bombs_take_no_memory(tmp_path: Path, size: int):
    content = bytes(64 << 20)
    path = archive(tmp_path / "images.zip", {"a/0.png": b"", "a/1.png": content})
    (_, sample) = opened(path).splits["train"]
    assert isinstance(sample.place, ZipMember)
    lying = ZipMember(
        *(getattr(sample.place, n) for n in ("path", "offset", "stored_size")), size, 0, True
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadImageError, match=r"too large|wrong size"):
        lying.read()
    with pytest.raises(BadImageError, match="too large"):
        CompressedRange(str(path), 0, 0, 1 << 29).read()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kilobytes


def test_xz_that_wants_more_memory_than_images_need_is_refused(tmp_path: Path):
    path = archive(tmp_path / "images.tar.xz", {"a/1.png": png(0), "b/1.png": png(1)})
    content = bytearray(path.read_bytes())
    end = 12 + (content[12] + 1) * 4  # of the header of the first block
    at = content.index(b"\x21\x01", 12, end) + 2  # the size of the dictionary of LZMA2
    content[at] = 36  # 1 GiB
    content[end - 4 : end] = zlib.crc32(content[12 : end - 4]).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match="more than 128 MiB to unpack; decompress it with unxz"):
        open_source(path, "archive", SourceOptions())


@pytest.mark.parametrize("form", ["tar.gz", "tar.bz2", "tar.xz"])
def test_a_compressed_tar_without_folders_is_no_shard(tmp_path: Path, form: str):
    path = archive(tmp_path / f"images.{form}", {"1.png": png(0), "2.png": png(1)})
    assert found(opened(path)) == [("1.png", -1), ("2.png", -1)]


def test_a_file_of_several_xz_streams_is_read_to_its_end(tmp_path: Path):
    contents = {f"{'ab'[i % 2]}/{i}.png": png(i) for i in range(6)}
    plain = archive(tmp_path / "images.tar", contents).read_bytes()
    parts = [lzma.compress(plain[start : start + 3000]) for start in range(0, len(plain), 3000)]
    (tmp_path / "images.tar.xz").write_bytes((bytes(4)).join(parts))
    assert read_all(tmp_path / "images.tar.xz") == contents


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_archives_are_refused_or_their_images_are_bad(tmp_path: Path, form: str):
    path = archive(tmp_path / f"images.{form}", {f"a/{i}.png": png(i) for i in range(4)})
    sound = path.read_bytes()
    whole = read_all(path)
    for cut in range(0, len(sound) - 1, max(1, len(sound) // 40)):
        path.write_bytes(sound[:cut])
        assert find_kind(path) in ("archive", "webdataset")
        contents = read_damaged(path)  # only the padding of a tar may be missing
        assert contents is None or (form == "tar" and contents == whole)
        path.write_bytes(sound[:cut] + bytes([sound[cut] ^ 255]) + sound[cut + 1 :])
        if form == "zip":  # whose checksums find what was changed
            found = read_damaged(path) or {}
            changed = [found[name] for name in whole if found.get(name, whole[name]) != whole[name]]
            assert not any(isinstance(content, bytes) for content in changed)


def read_damaged(path: Path) -> dict[str, bytes | str] | None:
    """What is in it, or nothing if it is refused in one line."""
    try:
        return read_all(path, "archive")
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 (not every damage is an error)
        return None


def test_a_name_twice_is_refused(tmp_path: Path):
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        for name in ("a/1.png", "./a/1.png"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(DataError, match=r"holds a/1\.png twice"):
        opened(tmp_path / "images.tar")


def test_ambiguous_names_in_an_archive(tmp_path: Path, rela: Callable[..., object]):
    save_tree(tmp_path / "set", dict.fromkeys(["cat/1.png", "dog/1.png", "test/1.png"], (8, 8)))
    shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path / "set")
    said = run_rela("convert", "set.zip", exit_code=2).stderr
    for number, command in enumerate(said.split("`")[1::2]):
        run_rela(*command.split()[1:], "--name", f"reading{number}", "--workers", 1)
