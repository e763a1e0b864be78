"""The demonstration, at its smallest: images on disk, every run there, table and picture agree."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from rela.stages import demo as stage


def test_the_digits_on_disk_are_scikit_learns(tmp_path: Path):
    stage.write_digits(tmp_path, range(3, 5))
    data = load_digits()
    files = sorted(tmp_path.rglob("*.png"))
    assert len(files) == int(((data.target == 3) | (data.target == 4)).sum())
    assert {path.parent.name for path in files} == {"3", "4"}
    for path in files[::50]:
        number = int(path.stem)
        assert str(data.target[number]) == path.parent.name
        assert path.parent.parent.name == ("val" if number % 5 == 0 else "train")
        found = np.asarray(Image.open(path), float) * 16 / 255
        assert np.allclose(found, data.images[number], atol=0.04)


def test_the_demonstration_runs_once_and_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = tmp_path / "small.toml"
    text = stage.RECIPE.read_text().replace("epochs = [3, 5]", "epochs = [1]")
    small.write_text(text.replace("epochs = 10", "epochs = 1"))
    monkeypatch.setattr(stage, "RECIPE", small)
    write_digits = stage.write_digits

    def write_two_fifths(folder: Path, classes: range) -> None:
        write_digits(folder, classes)
        for path in folder.rglob("*.png"):
            if int(path.stem) // 5 % 5 > 1:
                path.unlink()

    monkeypatch.setattr(stage, "write_digits", write_two_fifths)
    said: list[str] = []
    first = stage.demo(tmp_path / "demo", num_seeds=1, say=said.append)
    made = [(run.kind, run.epochs, run.seed) for run in first.runs]
    assert made == [(stage.PLAIN, 1, 0), (stage.RELA, 1, 0)]
    assert any("hand-over to stage 2" in line for line in said)
    with Image.open(first.plot) as picture:
        assert picture.size == (1040, 700)
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 50  # something is drawn
    words = stage.format_result(first)
    for run in first.runs:
        assert f"{100 * run.linear:.1f}  " in words
        assert f"{run.total_seconds:.1f}\n" in words.replace(" \n", "\n")
    assert "± 0.0" not in words  # of a single seed

    said.clear()
    again = stage.demo(tmp_path / "demo", num_seeds=1, say=said.append)
    assert again.runs == first.runs
    assert not any(line.startswith("epoch") for line in said)
