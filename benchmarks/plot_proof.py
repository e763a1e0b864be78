"""docs/proof.png: accuracy against cost on real images, from benchmarks/results and RESULTS.md.

python -m benchmarks.plot_proof
"""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
PANELS = {"fashion": "Fashion-MNIST, 10,000 images", "emoji": "Emoji, 5,679 images, 99 classes"}
SECTIONS = {"fashion": "### Fashion-MNIST: 10,000", "emoji": "### Emoji:"}
CURVES = {"alone": ("BYOL alone", "tab:gray"), "both stages": ("rela train", "tab:blue")}
LINES = {"the prior itself": (":", "the prior's own features")}


def main() -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, name in zip(axes, PANELS, strict=True):
        draw(axis, name)
    axes[0].set_ylabel("linear accuracy, %")
    axes[0].legend(loc="lower right", frameon=False)
    figure.savefig(HERE.parent / "docs" / "proof.png", dpi=130)


def draw(axis: Any, name: str) -> None:
    """Means and standard deviations over the seeds of each budget, and what needs no training."""
    lines = (HERE / "results" / f"{name}.jsonl").read_text().splitlines()
    runs = [run for run in map(json.loads, lines) if run["method"] == "byol"]
    lowest, aim = 100.0, 0.0
    for training, (label, colour) in CURVES.items():
        mine = [run for run in runs if run["training"] == training]
        points = []
        for budget in sorted({run["budget"] for run in mine}):
            found = [100 * run["linear"] for run in mine if run["budget"] == budget]
            seen = np.mean([run["images_seen"] for run in mine if run["budget"] == budget])
            points.append((seen / 1000, np.mean(found), np.std(found, ddof=1)))
        seen, mean, std = map(np.array, zip(*points, strict=True))
        axis.errorbar(seen, mean, std, color=colour, marker="o", capsize=3, label=label)
        lowest = min(lowest, float(mean.min()))
        aim = aim or float(mean[-1])
    axis.axhline(aim, color="tab:gray", linestyle="--", linewidth=0.8)
    for row, (style, label) in LINES.items():
        value = reference(name, row)
        if value > lowest - 10:
            axis.axhline(value, color="tab:orange", linestyle=style, linewidth=1, label=label)
    axis.set_title(f"{PANELS[name]}; chance {reference(name, 'chance'):g} %", fontsize=10)
    axis.set_xlabel("images seen, thousands (embedding included)")
    axis.spines[["top", "right"]].set_visible(False)


def reference(name: str, row: str) -> float:
    """The linear accuracy in a row of a table of RESULTS.md."""
    section = (HERE / "RESULTS.md").read_text().split(SECTIONS[name])[1]
    found = re.search(rf"^\| {row} \| \| [\d.]+ \| ([\d.]+) \|", section, re.M)
    assert found is not None, (name, row)
    return float(found[1])


if __name__ == "__main__":
    main()
