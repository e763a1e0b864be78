"""What `rela convert` stores of alpha, EXIF and values of more than 8 bits, and what stays as it was.

Covers: the digest of plain images, by its definition, which representations are cached by; one range of
values for a data set, for any number of workers; sources other than folders; `--background`, `--bits`.
"""

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import Rela, read_json
from pictures import picture, save_tree
from PIL import Image
from tiny_pngs import deep_png

from rela.pipeline.fingerprint import ordered_digest
from rela.sources.pixels import PixelRules
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.encoding import encoding_of
from rela.stages.workspace.summary import SHEET_FILE, SUMMARY_FILE
from rela.stages.workspace.workspace import Workspace


def dataset(name: str = "images") -> DataSet:
    return Workspace(Path("workspace")).dataset(name)


def stored(name: str = "images") -> list[np.ndarray]:
    """The raw pixels of every image of train, in the order of the beton."""
    beton = dataset(name).open("train")
    found = []
    for row in range(len(beton)):
        start, size = int(beton.pointers[row]), int(beton.sizes[row])
        shape = int(beton.heights[row]), int(beton.widths[row]), 3
        found.append(beton.data[start : start + size].reshape(shape))
    return found


def deep_folder(root: Path, largest: list[int]) -> Path:
    """A gray PNG of 16 bits for each of the largest values, in class a and b by turns."""
    for number, value in enumerate(largest):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.linspace(0, value, 8 * 8).astype(np.uint16).reshape(8, 8, 1)
        path.write_bytes(deep_png(values))
    return root


def test_plain_images_keep_their_digest(rela: Rela, tmp_path: Path):
    tree = save_tree(tmp_path / "images", {f"{c}/{i}.png": (8, 9) for c in "ab" for i in range(3)})
    rela("convert", tree, "--val-fraction", 0)
    digests = []
    for path in sorted(tree.rglob("*.png")):  # as version 1 did: mode, size, pixels of torchvision
        pixels = np.asarray(Image.open(path).convert("RGB"))
        digests.append(hashlib.sha256(b"1,8,9;" + pixels.tobytes()).hexdigest())
    assert dataset().images_sha256() == ordered_digest(digests)


def test_a_data_set_has_one_range_of_values(rela: Rela, tmp_path: Path):
    source = deep_folder(tmp_path / "images", [4000, 200, 4095, 1023])
    whole = ("convert", source, "--val-fraction", 0)
    said = rela(*whole, "--workers", 2)
    assert "scaled to their range (12 bits, 4,095 is white): writing again" in said.stderr
    assert [int(pixels.max()) for pixels in stored()] == [249, 255, 12, 64]
    assert dataset().content.bits == 12
    assert encoding_of(dataset()).pixels == PixelRules(bits=12)
    rela(*whole, "--workers", 1, "--name", "alone")
    assert (dataset().path / "train.beton").read_bytes() == (
        dataset("alone").path / "train.beton"
    ).read_bytes()


def test_full_values_of_16_bits_are_written_once(rela: Rela, tmp_path: Path):
    said = rela("convert", deep_folder(tmp_path / "images", [65_535, 4000]))
    assert "writing again" not in said.stderr
    assert [int(pixels.max()) for pixels in stored()] == [255, 16]


def test_bits_are_chosen(rela: Rela, tmp_path: Path):
    source = deep_folder(tmp_path / "images", [100, 4000])
    rela("convert", source, "--bits", 10)
    assert [int(pixels.max()) for pixels in stored()] == [25, 255]
    assert dataset().content.bits == 10
    rela("convert", source, exit_code=2)  # another data set


def test_bad_images_are_told_before_anything_is_written_again(rela: Rela, tmp_path: Path):
    source = deep_folder(tmp_path / "images", [100, 200])
    (source / "a/bad.png").write_bytes(b"no image")
    said = rela("convert", source, exit_code=65)
    assert "writing again" not in said.stderr


@pytest.mark.parametrize(
    ("options", "colour"),
    [
        ((), (255, 255, 255)),
        (("--background", "#00c800"), (0, 200, 0)),
        (("--background", "none"), (10, 20, 30)),
    ],
)
def test_the_background_of_transparent_images(rela: Rela, tmp_path: Path, options, colour):
    (tmp_path / "images/a").mkdir(parents=True)
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "images/a/0.png")
    rela("convert", tmp_path / "images", *options)
    assert (stored()[0] == colour).all()


def test_backgrounds_of_the_same_colour_are_the_same_data_set(rela: Rela, images: Path):
    found = read_json(rela("convert", images, "--background", "#FFF", "--json"))
    assert found["cached"]
    said = rela("convert", images, "--background", "bleu", "--name", "b", exit_code=2)
    assert "--background bleu: expected a colour such as white or #808080, or none" in said.stderr


def make_older(name: str = "images") -> None:
    """Rewrite a data set as version 1 left it."""
    path = dataset(name).path
    manifest = dataset(name).manifest
    parameters = {**manifest.parameters, "stage_version": 1, "alpha_on_white": False}
    content = dict(manifest.content)
    for table, keys in ((parameters, ("background", "bits")), (content, ("bits", "float_bits"))):
        for key in keys:
            del table[key]
    digests = dict(manifest.file_sha256)
    for file in (SUMMARY_FILE, SHEET_FILE):
        (path / file).unlink()
        del digests[file]
    changed = {"parameters": parameters, "content": content, "file_sha256": digests}
    replace(manifest, **changed).write(path)


def test_a_data_set_of_an_earlier_version_is_named_and_stays_usable(rela: Rela, images: Path):
    plain = dataset().images_sha256()
    make_older()
    said = rela("convert", images, "--max-side", 99, exit_code=2).stderr
    assert "data set images was made by an earlier version of rela" in said
    command = f"rela convert {images} --name images-2 --max-side 99"
    assert said.count("\n") == 1 and set(said.split("`")[1].split()) == set(command.split())
    assert "earlier version" in rela("embed", images, "--prior", "resnet18", exit_code=2).stderr
    rela(*said.split("`")[1].split()[1:])
    assert dataset("images-2").images_sha256() == plain == dataset().images_sha256()
    dataset().verify()
    assert "24 images" in rela("status", "images").stdout
    assert read_json(rela("status", "images", "--json"))["summary"] is None
    assert encoding_of(dataset()).pixels == PixelRules(None)


def test_images_in_a_csv_a_table_and_a_shard_are_read_alike(rela: Rela, tmp_path: Path):
    import tarfile

    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(picture(0, 6, 9))
    image.putalpha(Image.fromarray(picture(1, 6, 9)[:, :, 0]))
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    content = file.getvalue()
    (tmp_path / "one.png").write_bytes(content)
    (tmp_path / "list.csv").write_text("path,label\none.png,a\n")
    parquet.write_table(
        pyarrow.table({"image": [{"bytes": content, "path": None}], "label": [0]}),
        tmp_path / "table.parquet",
    )
    with tarfile.open("shard.tar", "w") as shard:
        for name, data in (("x.png", content), ("x.cls", b"a")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    behind = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    for source in ("list.csv", "table.parquet", "shard.tar"):
        rela("convert", source)
        (pixels,) = stored(source.split(".")[0])
        np.testing.assert_array_equal(pixels, np.rot90(np.asarray(behind.convert("RGB")), -1))
