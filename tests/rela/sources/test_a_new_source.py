"""A new kind of source: a module and its line in the registry, used through the command line.

The choices of --format, the help, the name of the data set, options
that do not apply and the list of known kinds all come from these two files.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import picture

from rela.data.beton.reader import open_beton

_MODULE = '''
"""NumPy archives of images and labels."""

import numpy as np

from rela.sources.labels import Labelled, find_classes
from rela.sources.source import ImageSource, Pixels

WHAT = "a NumPy archive of images and labels"
SUFFIXES = (".npz",)
OPTIONS = ("label_column",)


def recognises(path):
    return path.name.endswith(".npz")


def read(path, options, on_progress):
    arrays = np.load(path)
    labels = arrays[options.label_column or "labels"]
    samples = [
        Labelled(f"{row}", int(label), Pixels(image))
        for row, (image, label) in enumerate(zip(arrays["images"], labels))
    ]
    class_names, splits = find_classes(path, {"train": samples})
    return ImageSource(path, class_names, splits)
'''
_LINE = 'import rela.sources; rela.sources.__path__.append("."); rela.sources.KINDS["numpy"] = "archives"'


@pytest.fixture
def rela_with_archives(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a folder with images.npz, where `rela.sources.archives` is registered."""
    (tmp_path / "archives.py").write_text(_MODULE)
    images = np.stack([picture(number, 32, 32) for number in range(4)])
    np.savez(tmp_path / "images.npz", images=images, labels=[0, 1, 0, 1], fine=[3, 2, 1, 0])

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        code = f"{_LINE}; from rela.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, words)], cwd=tmp_path, capture_output=True,
            text=True, check=False, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip

    return run


def test_it_is_converted_by_its_looks_and_by_its_name(
    tmp_path: Path, rela_with_archives: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    found = rela_with_archives("convert", "images.npz", "--workers", 1)
    assert found.returncode == 0, found.stderr
    beton = open_beton(tmp_path / "workspace" / "datasets" / "images" / "train.beton", 2)
    assert beton.labels.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(
        beton.data[int(beton.pointers[3]) :][:3072], picture(3, 32, 32).ravel()
    )
    (tmp_path / "images.npz").rename(tmp_path / "images.data")
    words = (
        "convert",
        "images.data",
        "--format",
        "numpy",
        "--label-column",
        "fine",
        "--name",
        "fine",
    )
    assert rela_with_archives(*words).returncode == 0
    assert open_beton(tmp_path / "workspace/datasets/fine/train.beton").labels.tolist() == [
        3,
        2,
        1,
        0,
    ]


def test_help_and_messages_know_it(
    rela_with_archives: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    assert "webdataset|csv|folder|numpy]" in rela_with_archives("convert", "--help").stdout
    unknown = rela_with_archives("convert", "nowhere")
    assert (
        "found nothing, expected a NumPy archive of images and labels, a folder" in unknown.stderr
    )
    useless = rela_with_archives(
        "convert", "images.npz", "--image-root", ".", "--image-column", "x"
    )
    assert useless.returncode == 2
    assert (
        "--image-column, --image-root do not apply to images.npz (format numpy)" in useless.stderr
    )
