"""Photographs to measure with: cut from the two that scikit-learn ships, so nothing is downloaded."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images


def photo(index: int, height: int, width: int) -> Image.Image:
    """One of any number of different RGB pictures with the statistics of real ones."""
    draw = np.random.default_rng(index)
    source = Image.fromarray(load_sample_images().images[index % 2])
    share = draw.uniform(0.5, 1.0)
    box_height = share * min(source.height, source.width * height / width)
    box_width = box_height * width / height
    left = draw.uniform(0, source.width - box_width)
    top = draw.uniform(0, source.height - box_height)
    box = (left, top, left + box_width, top + box_height)
    cut = source.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else cut


def write_photos(
    folder: Path, count: int, height: int, width: int, suffix: str = ".jpg", num_classes: int = 10
) -> Path:
    """Class folders of `count` photographs; JPEGs of quality 90. What is there already stays."""
    for index in range(count):
        path = folder / f"class{index % num_classes}" / f"{index:06}{suffix}"
        if path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        options = {"quality": 90} if suffix == ".jpg" else {}
        photo(index, height, width).save(buffer, Image.registered_extensions()[suffix], **options)
        path.write_bytes(buffer.getvalue())
    return folder
