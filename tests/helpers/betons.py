"""Betons of small pictures."""

from pathlib import Path

import numpy as np

from rela.data.beton.encoding import Encoding
from rela.data.beton.reader import Beton, open_beton
from rela.data.beton.writer import write_beton
from rela.data.ffcv_format import MODE_RAW
from rela.sources.source import Sample


def beton_of(folder: Path, mode: str = "raw", num_classes: int = 1, **options: int) -> Beton:
    """The images of a folder, 2.png before 10.png; labels count up modulo `num_classes`."""
    names = sorted((path.name for path in folder.iterdir()), key=lambda name: (len(name), name))
    samples = [Sample(name, i % num_classes) for i, name in enumerate(names)]
    destination = folder.with_name(f"{folder.name}.beton")
    made = write_beton(destination, folder, samples, Encoding(mode, **options), num_workers=1)
    assert not made.bad_images
    return open_beton(destination)


def in_memory(images: list[np.ndarray], num_classes: int = 1) -> Beton:
    """A beton of raw images that lies in memory; labels count up modulo `num_classes`."""
    sizes = np.array([image.size for image in images], np.uint64)
    return Beton(
        path=Path("memory.beton"),
        data=np.concatenate([image.ravel() for image in images]),
        pointers=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.uint64),
        sizes=sizes,
        modes=np.full(len(images), MODE_RAW, np.uint8),
        heights=np.array([image.shape[0] for image in images], np.uint16),
        widths=np.array([image.shape[1] for image in images], np.uint16),
        labels=np.arange(len(images)) % num_classes,
    )
