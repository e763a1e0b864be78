"""Images to measure with: cut from the two photographs that scikit-learn ships, or noise; their betons."""

import functools
import io
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from rela.data.beton.reader import Beton

_NUM_CLASSES = 10


@functools.cache
def _sources() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(pixels) for pixels in load_sample_images().images]


def photo(index: int, height: int, width: int) -> Image.Image:
    """One of any number of different RGB pictures with the statistics of real ones."""
    draw = np.random.default_rng(index)
    source = _sources()[index % 2]
    share = draw.uniform(0.5, 1.0)
    box_height = share * min(source.height, source.width * height / width)
    box_width = box_height * width / height
    left = draw.uniform(0, source.width - box_width)
    top = draw.uniform(0, source.height - box_height)
    box = (left, top, left + box_width, top + box_height)
    cut = source.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else cut


def noise(index: int, height: int, width: int) -> Image.Image:
    """Quickly made."""
    pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def write_photos(
    folder: Path, count: int, height: int, width: int, suffix: str = ".jpg",
    make: Callable[[int, int, int], Image.Image] = photo,
) -> Path:  # fmt: skip
    """Class folders of `count` images; JPEGs of quality 90. What is there already stays."""

    def write(index: int) -> None:
        path = folder / f"class{index % _NUM_CLASSES}" / f"{index:06}{suffix}"
        if path.is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        options = {"quality": 90} if suffix == ".jpg" else {}
        make(index, height, width).save(buffer, Image.registered_extensions()[suffix], **options)
        path.write_bytes(buffer.getvalue())

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # Pillow releases the lock
        deque(pool.map(write, range(count)), 0)
    return folder


def beton_of(folder: Path, write_mode: str) -> "Beton":
    """The images of a class folder in a beton beside it; what is there already stays."""
    from rela.data.beton.encoding import Encoding
    from rela.data.beton.reader import open_beton
    from rela.data.beton.writer import write_beton
    from rela.sources.image_folder import scan

    path = folder.with_name(f"{folder.name}-{write_mode}.beton")
    if not path.is_file():
        unfinished = path.with_suffix(".tmp")
        unfinished.unlink(missing_ok=True)
        found = scan(folder)
        cores = len(os.sched_getaffinity(0))
        write_beton(unfinished, found.root, found.splits["train"], Encoding(write_mode), cores)
        unfinished.replace(path)
    return open_beton(path)
