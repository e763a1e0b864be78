"""Shared fixtures: small trees of real image files, and the command line."""

from pathlib import Path

import pytest
import torch
from command_line import Rela, run_rela
from pictures import SMALL_TREE, MakeTree, save_tree

# imported before a test changes ROWS_PER_PART, which they would keep for all later tests
from rela.representations import concatenation, feature_files, targets  # noqa: F401


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small models on two threads wait for each other, and on a busy machine for seconds."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """A test draws the same numbers alone and after any others; pytest-randomly sees to NumPy's."""
    torch.manual_seed(0)


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """make_tree({"train/cat/1.png": (24, 24), ...}) → a folder with those images."""
    return lambda sizes, name="images": save_tree(tmp_path / name, sizes)


@pytest.fixture
def small_tree(make_tree: MakeTree) -> Path:
    """Three classes, 8 train and 4 val PNGs of 16×16 pixels each."""
    return make_tree(SMALL_TREE)


@pytest.fixture
def rela(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rela:
    """rela("embed", "--prior", ...) in an empty directory; fails the test unless exit is as said."""
    monkeypatch.chdir(tmp_path)
    for name in ("RELA_WORKSPACE", "WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    return run_rela


@pytest.fixture
def images(rela: Rela, small_tree: Path) -> Path:
    """The small tree, converted to the data set `images` of the workspace of `rela`."""
    rela("convert", small_tree)
    return small_tree
