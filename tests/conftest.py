"""Shared fixtures: small trees of real image files, and a workspace made from one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from cli import main


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small models on two threads wait for each other, and on a busy machine for seconds."""
    torch.set_num_threads(1)


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


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[..., Path]:
    """make_tree({"train/cat/1.png": (24, 24), ...}) → a folder with those images."""

    def make(sizes: dict[str, tuple[int, int]], name: str = "images") -> Path:
        root = tmp_path / name
        for number, (path, (height, width)) in enumerate(sizes.items()):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(number, height, width)).save(root / path)
        return root

    return make


@pytest.fixture
def small_tree(make_tree: Callable[..., Path]) -> Path:
    """Three classes, 8 train and 4 val PNGs of 16×16 pixels each."""
    return make_tree(
        {
            f"{split}/{name}/{i:02d}.png": (16, 16)
            for split, count in (("train", 8), ("val", 4))
            for name in ("ant", "bee", "cat")
            for i in range(count)
        }
    )


def run_rela(*arguments: object, exit_code: int = 0) -> Result:
    """The command line in this process; fails the test unless it exits as said."""
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == exit_code, result.output
    return result
