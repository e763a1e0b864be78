"""Writing betons.

Covers: what stock FFCV's `Reader` and `Loader` find in a written beton, against PIL and the source
files; original JPEG bytes kept, other images encoded; shrinking as FFCV does it; the same file for any
number of workers; the seeded share of `proportion`; bad images left out and named; errors instead of
hangs or holes when a worker is killed or the disk fills up, and no worker left when the parent dies.
"""

import filecmp
import hashlib
import importlib
import io
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from command_line import run_python
from pictures import picture
from PIL import Image

from rela.data.beton.encoding import Encoding
from rela.data.beton.writer import write_beton
from rela.data.ffcv_format import PAGE_BYTES, SMALLEST_PAGE_BYTES
from rela.errors import DataError
from rela.sources.source import Sample

RAW, JPEG = Encoding("raw"), Encoding("jpg")


def save(root: Path, images: dict[str, np.ndarray | Image.Image], **options) -> list[Sample]:
    """Save images by name below `root`; labels count up modulo 3."""
    root.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        image.save(root / name, **options)
    return [Sample(name, number % 3) for number, name in enumerate(images)]


def stock_ffcv(module: str):
    """A module of FFCV; importing it sets torch's thread count, which is undone."""
    threads = torch.get_num_threads()
    try:
        return importlib.import_module(f"ffcv.{module}")
    finally:
        torch.set_num_threads(threads)


def stock_reader(path: Path):
    return stock_ffcv("reader").Reader(str(path))


def column(path: Path, number: int) -> np.ndarray:
    """One column of the metadata, found with FFCV's own reader."""
    metadata = stock_reader(path).metadata
    return metadata[metadata.dtype.names[number]]


def stored(path: Path) -> list[tuple[int, np.ndarray]]:
    """(mode, bytes) of every image."""
    reader, image = stock_reader(path), column(path, 0)
    sizes = {int(row["ptr"]): int(row["size"]) for row in reader.alloc_table}
    content = np.memmap(path, np.uint8, "r")
    return [
        (int(mode), content[int(start) : int(start) + sizes[int(start)]])
        for mode, start in zip(image["mode"], image["data_ptr"], strict=True)
    ]


def shapes(path: Path) -> list[tuple[int, int]]:
    image = column(path, 0)
    return list(zip(image["height"].tolist(), image["width"].tolist(), strict=True))


def integers(path: Path, number: int) -> list[int]:
    return np.frombuffer(column(path, number).tobytes(), np.int64).tolist()


@pytest.fixture(scope="module")
def pngs(tmp_path_factory):
    """Forty PNGs of other sizes: (folder, samples, pixels)."""
    root = tmp_path_factory.mktemp("pngs")
    pixels = {f"{i:02d}.png": picture(i, 12 + i, 50 - i) for i in range(40)}
    return root, save(root, pixels), list(pixels.values())


def workers() -> list[psutil.Process]:
    pids = {child.pid for child in multiprocessing.active_children()}
    return [child for child in psutil.Process().children() if child.pid in pids]


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert alive == []


# What stock FFCV reads


@pytest.mark.parametrize("num_workers", [1, 2])
def test_stock_reader_finds_fields_labels_and_indices(pngs, tmp_path, num_workers):
    root, samples, pixels = pngs
    write_beton(tmp_path / "b", root, samples, RAW, num_workers)
    reader = stock_reader(tmp_path / "b")
    assert reader.field_names == ["image", "label", "index"]
    assert reader.num_samples == len(samples)
    assert integers(tmp_path / "b", 1) == [sample.label for sample in samples]
    assert integers(tmp_path / "b", 2) == list(range(len(samples)))
    assert shapes(tmp_path / "b") == [image.shape[:2] for image in pixels]


def test_raw_pixels_are_those_of_the_source(pngs, tmp_path):
    root, samples, pixels = pngs
    write_beton(tmp_path / "b", root, samples, RAW, 1)
    for (mode, content), expected in zip(stored(tmp_path / "b"), pixels, strict=True):
        assert mode == 1
        np.testing.assert_array_equal(content, expected.ravel())


STOCK_LOADER = """
import sys
import numpy as np
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import ToTensor

out = {}
for name in ("raw", "jpg"):
    loader = Loader(
        f"{sys.argv[1]}/{name}.beton", batch_size=5, num_workers=1, order=OrderOption.SEQUENTIAL,
        drop_last=False, os_cache=name == "raw",  # else FFCV reads whole pages
        pipelines={
            "image": [SimpleRGBImageDecoder(), ToTensor()],
            "label": [IntDecoder(), ToTensor()],
            "index": [IntDecoder(), ToTensor()],
        },
    )
    batches = [[value.clone().numpy() for value in batch] for batch in loader]
    for key, values in zip(("image", "label", "index"), zip(*batches)):
        out[f"{name}_{key}"] = np.concatenate(values)
np.savez(f"{sys.argv[1]}/found.npz", **out)
"""


def test_stock_loader_gives_the_pixels_of_pil(tmp_path):
    images = {f"{i}.jpg": picture(i, 40, 56) for i in range(12)}
    samples = save(tmp_path, images, quality=95, subsampling=0)
    write_beton(tmp_path / "raw.beton", tmp_path, samples, RAW, 1)
    write_beton(tmp_path / "jpg.beton", tmp_path, samples, JPEG, 1)
    run_python("-c", STOCK_LOADER, tmp_path, check=True, timeout=120)
    found = np.load(tmp_path / "found.npz")
    expected = np.stack([np.asarray(Image.open(tmp_path / name)) for name in images])
    np.testing.assert_array_equal(found["raw_image"], expected)
    difference = np.abs(found["jpg_image"].astype(int) - expected)  # two decoders of one JPEG
    assert difference.max() <= 6 and difference.mean() < 1.5
    for name in ("raw", "jpg"):
        assert found[f"{name}_label"].ravel().tolist() == [sample.label for sample in samples]
        assert found[f"{name}_index"].ravel().tolist() == list(range(12))


def test_images_fill_page_after_page(tmp_path):
    images = {f"{i}.bmp": picture(i, 900, 1000) for i in range(8)}  # three to a page
    write_beton(tmp_path / "b", tmp_path, save(tmp_path, images), RAW, 2)
    for (_, content), expected in zip(stored(tmp_path / "b"), images.values(), strict=True):
        np.testing.assert_array_equal(content, expected.ravel())
    starts = stock_reader(tmp_path / "b").alloc_table["ptr"] // PAGE_BYTES
    assert len(set(starts.tolist())) == 3


@pytest.mark.parametrize(("side", "num_images"), [(32, 150), (8, 901), (500, 10), (1, 1)])
def test_a_small_file_has_small_pages(tmp_path, side, num_images):
    Image.fromarray(picture(0, side, side)).save(tmp_path / "one.bmp")
    write_beton(tmp_path / "b", tmp_path, [Sample("one.bmp", 0)] * num_images, RAW, 1)
    header = stock_reader(tmp_path / "b")
    pixels, page = 3 * side**2 * num_images, int(header.page_size)
    assert page & (page - 1) == 0 and page >= 3 * side**2
    assert pixels <= (tmp_path / "b").stat().st_size <= 1.15 * pixels + 100 * num_images + 3 * page
    table = header.alloc_table
    assert (table["ptr"] // page == (table["ptr"] + table["size"] - 1) // page).all()
    for _, content in stored(tmp_path / "b"):
        np.testing.assert_array_equal(content, picture(0, side, side).ravel())


# How images are stored


def test_jpeg_files_are_stored_byte_for_byte(tmp_path):
    photo = Image.fromarray(picture(0, 150, 200))
    samples = [
        *save(tmp_path, {"plain.jpg": photo, "gray.jpg": photo.convert("L")}),
        *save(tmp_path, {"progressive.jpg": photo}, progressive=True, quality=40),
        *save(tmp_path, {"444.jpg": photo}, subsampling=0, comment=b"hello", dpi=(72, 72)),
    ]
    result = write_beton(tmp_path / "b", tmp_path, samples, Encoding("auto"), 1)
    assert (result.num_jpeg, result.num_raw) == (4, 0)
    for (mode, content), sample in zip(stored(tmp_path / "b"), samples, strict=True):
        assert mode == 0
        assert content.tobytes() == (tmp_path / sample.path).read_bytes(), sample.path


def test_cmyk_jpegs_and_other_formats_are_encoded_as_rgb(tmp_path):
    photo = Image.fromarray(picture(0, 150, 200))
    samples = save(tmp_path, {"cmyk.jpg": photo.convert("CMYK"), "png.png": photo}, quality=95)
    write_beton(tmp_path / "b", tmp_path, samples, Encoding("jpg", jpeg_quality=95), 1)
    for (mode, content), sample in zip(stored(tmp_path / "b"), samples, strict=True):
        assert mode == 0
        assert content.tobytes() != (tmp_path / sample.path).read_bytes()
        image = Image.open(io.BytesIO(content.tobytes()))
        assert (image.format, image.mode) == ("JPEG", "RGB")
        expected = np.asarray(Image.open(tmp_path / sample.path).convert("RGB"))
        assert np.abs(np.asarray(image).astype(int) - expected).mean() < 2


def test_a_jpeg_that_exif_turns_is_stored_upright(tmp_path):
    photo = Image.fromarray(picture(0, 150, 200))
    exif = Image.Exif()
    exif[0x0112] = 6
    samples = save(tmp_path, {"turned.jpg": photo}, quality=95, exif=exif)
    result = write_beton(tmp_path / "b", tmp_path, samples, Encoding("jpg", jpeg_quality=95), 1)
    ((mode, content),) = stored(tmp_path / "b")
    image = Image.open(io.BytesIO(content.tobytes()))
    assert mode == 0 and shapes(tmp_path / "b") == [(200, 150)]
    assert image.size == (150, 200) and 0x0112 not in image.getexif()
    upright = np.rot90(np.asarray(Image.open(tmp_path / "turned.jpg")), -1)
    assert np.abs(np.asarray(image).astype(int) - upright).mean() < 2
    assert result.tally.turned.count == 1


def test_auto_keeps_small_images_raw_and_large_ones_jpeg(tmp_path):
    images = {"small.jpg": picture(0, 128, 128), "large.jpg": picture(1, 128, 129)}
    result = write_beton(tmp_path / "b", tmp_path, save(tmp_path, images), Encoding("auto"), 1)
    assert [mode for mode, _ in stored(tmp_path / "b")] == [1, 0]
    assert (result.num_jpeg, result.num_raw) == (1, 1)


def test_large_images_are_shrunk_as_ffcv_does_it(tmp_path):
    resizer = stock_ffcv("fields.rgb_image").resizer
    sizes = [(90, 60), (60, 90), (64, 64), (65, 3), (10, 20), (64, 40)]
    images = {f"{i}.png": picture(i, *size) for i, size in enumerate(sizes)}
    write_beton(tmp_path / "b", tmp_path, save(tmp_path, images), Encoding("raw", max_side=64), 1)
    expected = [resizer(image, 64) for image in images.values()]
    assert shapes(tmp_path / "b") == [image.shape[:2] for image in expected]
    for (_, content), image in zip(stored(tmp_path / "b"), expected, strict=True):
        np.testing.assert_array_equal(content, image.ravel())


def test_a_shrunk_jpeg_is_encoded_again(tmp_path):
    samples = save(tmp_path, {"a.jpg": picture(0, 90, 60)})
    write_beton(tmp_path / "b", tmp_path, samples, Encoding("jpg", max_side=45), 1)
    ((_, content),) = stored(tmp_path / "b")
    assert Image.open(io.BytesIO(content.tobytes())).size == (30, 45)


# The result


def test_the_file_is_the_same_for_any_number_of_workers(pngs, tmp_path):
    root, samples, _ = pngs
    results = [write_beton(tmp_path / f"{n}", root, samples, RAW, n) for n in (1, 2)]
    assert filecmp.cmp(tmp_path / "1", tmp_path / "2", shallow=False)
    assert results[0] == results[1]


def test_the_result_records_samples_digests_and_sizes(pngs, tmp_path):
    root, samples, pixels = pngs
    steps = []
    result = write_beton(tmp_path / "b", root, samples, RAW, 1, on_progress=steps.append)
    assert result.samples == samples and result.bad_images == []
    assert sum(steps) == len(samples)
    assert result.source_sha256 == [
        hashlib.sha256((root / sample.path).read_bytes()).hexdigest() for sample in samples
    ]
    assert len(set(result.image_sha256)) == len(samples)
    assert sorted(result.tally.sizes) == sorted(image.shape[:2] for image in pixels)


def test_a_share_of_the_images_becomes_jpeg_by_seed_and_path(tmp_path):
    samples = save(tmp_path / "images", {f"{i:03d}.bmp": picture(i, 8, 8) for i in range(300)})
    encoding = Encoding("proportion", jpeg_share=0.3)

    def modes(name: str, seed: int, chosen: list[Sample]) -> list[int]:
        write_beton(tmp_path / name, tmp_path / "images", chosen, encoding, 1, seed)
        return [mode for mode, _ in stored(tmp_path / name)]

    first = modes("first", 5, samples)
    assert abs(first.count(0) - 90) < 4 * np.sqrt(300 * 0.3 * 0.7)
    assert modes("half", 5, samples[::2]) == first[::2]
    assert modes("other", 6, samples) != first


def test_bad_images_are_left_out_and_named(tmp_path):
    good = save(tmp_path, {"a.png": picture(0), "d.png": picture(1), "g.png": picture(2)})
    (tmp_path / "b.png").touch()
    (tmp_path / "c.jpg").write_bytes(b"not an image")
    (tmp_path / "e.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    bad = [Sample(name, 0) for name in ("b.png", "c.jpg", "e.png", "f.png")]
    samples = sorted(good + bad, key=lambda sample: sample.path)
    result = write_beton(tmp_path / "beton", tmp_path, samples, RAW, 1)
    assert result.samples == good
    reasons = dict(result.bad_images)
    assert list(reasons) == ["b.png", "c.jpg", "e.png", "f.png"]
    assert "empty" in reasons["b.png"] and "not an image" in reasons["c.jpg"]
    assert "damaged" in reasons["e.png"] and "No such file" in reasons["f.png"]
    assert integers(tmp_path / "beton", 2) == [0, 1, 2]
    assert integers(tmp_path / "beton", 1) == [sample.label for sample in good]
    for (_, content), seed in zip(stored(tmp_path / "beton"), range(3), strict=True):
        np.testing.assert_array_equal(content, picture(seed).ravel())


def test_a_raw_image_larger_than_a_page_is_bad(tmp_path):
    images = {"large.bmp": picture(0, 1700, 1650), "small.bmp": picture(1)}
    result = write_beton(tmp_path / "b", tmp_path, save(tmp_path, images), RAW, 1)
    ((path, reason),) = result.bad_images
    assert path == "large.bmp"
    assert reason.startswith("too large: 1650×1700 pixels") and "--max-side" in reason
    assert [sample.path for sample in result.samples] == ["small.bmp"]


# What goes wrong


def test_an_existing_file_is_not_overwritten(pngs, tmp_path):
    root, samples, _ = pngs
    (tmp_path / "b").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write_beton(tmp_path / "b", root, samples, RAW, 1)
    assert (tmp_path / "b").read_bytes() == b"mine"


def kill_workers(count):
    for child in multiprocessing.active_children():
        child.kill()


def stop(count):
    raise KeyboardInterrupt("by Ctrl-C")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("on_progress", "error", "message"),
    [(kill_workers, DataError, "a worker process died"), (stop, KeyboardInterrupt, "Ctrl-C")],
)
def test_errors_while_writing_leave_no_worker(pngs, tmp_path, on_progress, error, message):
    root, samples, _ = pngs
    with pytest.raises(error, match=message):
        write_beton(tmp_path / "b", root, samples * 50, RAW, 2, on_progress=on_progress)
    assert_gone(workers())


@pytest.mark.timeout(60)
def test_workers_die_with_a_killed_parent(pngs, tmp_path):
    root, _, _ = pngs
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from rela.data.beton.writer import write_beton\n"
        "from rela.data.beton.encoding import Encoding\n"
        "from rela.sources.source import Sample\n"
        "def wait(count): print('started', flush=True); time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    write_beton(Path(sys.argv[1]), Path(sys.argv[2]), [Sample('00.png', 0)] * 500,\n"
        "                Encoding('raw'), 2, on_progress=wait)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    parent = subprocess.Popen(
        [sys.executable, script, tmp_path / "b", root], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    assert parent.stdout.readline() == b"started\n"
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) >= 2
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    assert_gone(family)


def test_a_disk_that_fills_up_is_an_error(pngs, tmp_path):
    root, samples, _ = pngs
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALLEST_PAGE_BYTES + 5000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_beton(tmp_path / "b", root, samples, RAW, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
