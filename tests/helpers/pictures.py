"""Pictures that tests make by themselves, and folders of them."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

MakeTree = Callable[..., Path]  # the fixture `make_tree`
SMALL_TREE = {
    f"{split}/{name}/{i:02d}.png": (16, 16)
    for split, count in (("train", 8), ("val", 4))
    for name in ("ant", "bee", "cat")
    for i in range(count)
}


def picture(seed: int, height: int = 24, width: int = 24) -> np.ndarray:
    """A smooth random picture, uint8 [height, width, 3]: gradients and a blob, not noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for _ in range(3):
        a, b, c = rng.uniform(-1, 1, 3)
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        blob = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (0.1 * height * width))
        planes.append(128 + 60 * (a * y / height + b * x / width) + 90 * c * blob)
    return np.clip(np.stack(planes, axis=2), 0, 255).astype(np.uint8)


def png(seed: int, height: int, width: int) -> bytes:
    """A picture as the bytes of a PNG."""
    file = io.BytesIO()
    Image.fromarray(picture(seed, height, width)).save(file, "PNG")
    return file.getvalue()


def save_tree(root: Path, sizes: dict[str, tuple[int, int]]) -> Path:
    """A folder with images of these (height, width) by path; the seeds count up."""
    for seed, (path, size) in enumerate(sizes.items()):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed, *size)).save(root / path)
    return root
