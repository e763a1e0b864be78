"""Networks of other code than rela's: a module, `module:tiny`, and the example of a plugin as installed."""

import shutil
import sys
import tomllib
from pathlib import Path

import torch
from torch import Tensor, nn

from rela.models.own_code.networks import register
from rela.models.preprocessing import Preprocessing

_EXAMPLE = Path(__file__).parents[2] / "examples/plugin"


class Tiny(nn.Module):
    """Images [B, 3, S, S] → features [B, 32]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean((2, 3))


def make_known(packages: Path) -> None:
    """Register `module:tiny`, with weights that are always the same; install the plugin in `packages`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        register(Tiny(), name="tiny", preprocessing=Preprocessing(16, 16))
    project = tomllib.loads((_EXAMPLE / "pyproject.toml").read_text())["project"]
    if not packages.is_dir():
        unfinished = packages.with_suffix(".unfinished")
        about = unfinished / "example.dist-info"
        about.mkdir(parents=True, exist_ok=True)
        for source in _EXAMPLE.glob("*.py"):
            shutil.copy(source, unfinished)
        (about / "METADATA").write_text(f"Name: {project['name']}\nVersion: 1.0\n")
        lines = [
            line
            for group, points in project["entry-points"].items()
            for line in (f"[{group}]", *(f"{name} = {place}" for name, place in points.items()))
        ]
        (about / "entry_points.txt").write_text("\n".join(lines))
        unfinished.rename(packages)
    sys.path.insert(0, str(packages))
