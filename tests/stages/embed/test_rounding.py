"""What is stored of features: numpy's own rounding, and a word when it keeps too little."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import run_rela

from rela.errors import DataError
from rela.stages.embed.rounding import Rounding
from rela.stages.workspace.workspace import Workspace

ROWS = np.arange(8)


@pytest.fixture
def make_rounding(small_tree: Path, tmp_path: Path) -> Callable[[str], tuple[Rounding, list[str]]]:
    run_rela("--workspace", tmp_path / "ws", "convert", small_tree)
    dataset = Workspace(tmp_path / "ws").dataset("images")

    def make(dtype: str) -> tuple[Rounding, list[str]]:
        said: list[str] = []
        return Rounding(dataset.index, dtype, said.append), said

    return make


def features(scale: float) -> np.ndarray:
    drawn = np.random.default_rng(0).uniform(0.5, 1.0, (8, 4))
    return np.float32(scale * drawn)


@pytest.mark.parametrize(
    ("dtype", "scale", "is_coarse"),
    [
        ("float16", 1.0, False),
        ("float16", 1e-4, False),
        # steps of 2**-24 = 6e-8, half of which a value may be off: 3 % of 1e-6, 0.3 % of 1e-5
        ("float16", 1e-5, False),
        ("float16", 1e-6, True),
        ("float16", 1e-8, True),
        ("float16", 1e-30, True),
        ("float16", 0.0, False),
        ("float32", 1e-30, False),
    ],
)
def test_small_features_are_warned_about_once(
    make_rounding, dtype: str, scale: float, is_coarse: bool
):
    rounding, said = make_rounding(dtype)
    for _ in range(2):
        values = rounding(ROWS, features(scale))
    np.testing.assert_array_equal(values, features(scale).astype(dtype))
    assert len(said) == is_coarse
    if is_coarse:
        assert said[0].startswith("warning: the prior's features are so small (at most ")
        assert said[0].endswith("; use --dtype float32")


def test_the_lost_share_is_reported(make_rounding):
    rounding, said = make_rounding("float16")
    rounding(ROWS, np.full((8, 4), 2.0**-26, np.float32))  # rounds to nothing
    assert "at most 1e-08) that rounding to float16 changes them by 100 %" in said[0]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e5])
def test_images_with_nan_features_are_named(make_rounding, wrong: float):
    rounding, _ = make_rounding("float16")
    values = features(1.0)
    values[2, 1] = wrong
    with pytest.raises(DataError, match=r"1 images: train/ant/02.png.*--dtype float32"):
        rounding(ROWS, values)
