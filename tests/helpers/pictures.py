"""Pictures that tests make by themselves."""

import numpy as np


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
