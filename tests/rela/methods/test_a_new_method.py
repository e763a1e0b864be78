"""A new method: its file and its line in the registry; `rela train` offers it and trains with it."""

import json
from collections.abc import Callable
from pathlib import Path

from command_line import TINY, run_with

SOURCE = """
from rela.data.views import View
from rela.methods.method import Method

class Alignment(Method):
    def views(self):
        return View(self.options.image_size), View(self.options.image_size)

    def forward(self, views, labels, progress):
        features = [self.backbone(view) for view in views]
        return (features[0] - features[1]).square().mean(), features
"""
REGISTER = """
from rela import methods
methods.METHODS["alignment"] = "alignment", "Alignment"
methods.__path__.append("more_methods")
"""


def test_it_is_trained_with(rela: Callable[..., object], small_tree: Path, tmp_path: Path) -> None:
    (tmp_path / "more_methods").mkdir()
    (tmp_path / "more_methods/alignment.py").write_text(SOURCE)
    train = ("train", "--method", "alignment", "--epochs", 1, *TINY)
    _, _, status, help_text = run_with(
        REGISTER,
        ("convert", small_tree),
        (*train, "--prior", "none"),
        ("status", "--json"),
        ("train", "--help"),
    )
    assert json.loads(status)["runs"][0]["name"] == "images-alignment-1"
    manifest = json.loads(
        (tmp_path / "workspace/runs/images-alignment-1/manifest.json").read_text()
    )
    assert manifest["parameters"]["method"] == "alignment"
    assert manifest["parameters"]["optimizer"] == "adamw"  # what a method has by default
    record = json.loads((tmp_path / "workspace/runs/images-alignment-1/metrics.jsonl").read_text())
    assert record["loss"] > 0
    assert "none|alignment" in "".join(help_text.split())
