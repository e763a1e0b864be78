"""Shared fixtures: small trees of real image files, and a workspace made from one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pictures import picture
from PIL import Image


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small models on two threads wait for each other, and on a busy machine for seconds."""
    torch.set_num_threads(1)


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
