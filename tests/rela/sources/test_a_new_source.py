"""A new kind of source: a module and its line in the registry, used through the command line.

The choices of --format, the help, the name of the data set, options
that do not apply and the list of known kinds all come from these two files.
"""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from command_line import run_python
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
_LINE = 'import rela.sources; rela.sources.__path__.append("."); rela.sources.KINDS["numpy"] = "numpy_files"'
Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def rela_with_archives(tmp_path: Path) -> Run:
    """The command line in a folder with images.npz, where `rela.sources.numpy_files` is registered."""
    (tmp_path / "numpy_files.py").write_text(_MODULE)
    images = np.stack([picture(number, 32, 32) for number in range(4)])
    np.savez(tmp_path / "images.npz", images=images, labels=[0, 1, 0, 1], fine=[3, 2, 1, 0])
    code = f"{_LINE}; from rela.cli import main; main()"
    return lambda *words: run_python("-c", code, *words, cwd=tmp_path, env={"COLUMNS": "200"})


def test_it_is_recognised_and_chosen_by_format(tmp_path: Path, rela_with_archives: Run):
    found = rela_with_archives("convert", "images.npz", "--val-fraction", 0)
    assert found.returncode == 0, found.stderr
    datasets = tmp_path / "workspace" / "datasets"
    beton = open_beton(datasets / "images" / "train.beton", 2)
    assert beton.labels.tolist() == [0, 1, 0, 1]
    last = beton.data[int(beton.pointers[3]) :][:3072]
    np.testing.assert_array_equal(last, picture(3, 32, 32).ravel())
    (tmp_path / "images.npz").rename(tmp_path / "images.data")
    words = "convert images.data --format numpy --label-column fine --name fine --val-fraction 0"
    assert rela_with_archives(*words.split()).returncode == 0
    assert open_beton(datasets / "fine" / "train.beton").labels.tolist() == [3, 2, 1, 0]


def test_help_and_messages_know_it(rela_with_archives: Run):
    assert "webdataset|csv|folder|numpy]" in rela_with_archives("convert", "--help").stdout
    unknown = rela_with_archives("convert", "nowhere").stderr
    assert "found nothing, expected a NumPy archive of images and labels, a folder" in unknown
    words = ("convert", "images.npz", "--image-root", ".", "--image-column", "x")
    useless = rela_with_archives(*words)
    assert useless.returncode == 2
    said = "--image-column, --image-root do not apply to images.npz (format numpy)"
    assert said in useless.stderr
