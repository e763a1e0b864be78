"""The pictures of docs/is-it-working.md: curves of short trainings, a good one and three that go wrong.

    python -m benchmarks.image_sets fashion --output images
    python -m benchmarks.image_sets lite0 --output lite0.pth
    python -m benchmarks.training_curves --images images/fashion --weights lite0.pth

Fashion-MNIST, a fifth of 10,000 images in each of ten epochs, 620 steps. The runs are those of
training_curves.toml; finished ones are reused. Ten minutes on one core. Draws docs/curves-*.png.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from rela.stages.demo import write_digits
from rela.stages.recipe.jobs import load_recipe
from rela.stages.recipe.run import describe_failures, run_recipe
from rela.stages.workspace.run import Run
from rela.stages.workspace.workspace import Workspace

RECIPE = Path(__file__).with_suffix(".toml")
DOCS = Path(__file__).parents[1] / "docs"
GOOD = "good"
TITLES = {
    GOOD: "a good run",
    "collapsed": "without a prior, --lr 1 --schedule constant",
    "high-rate": "--lr 3",
    "other-domain": "a prior that was trained on digits",
}
STAGE_1, STAGE_2, GREY = "#0072b2", "#e69f00", "#b0b0b0"


def main() -> None:
    """Run what is missing, then draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--images", type=Path, required=True, help="Fashion-MNIST in train/ and val/"
    )
    parser.add_argument("--weights", type=Path, required=True, help="EfficientNet-Lite0")
    parser.add_argument("--output", type=Path, default=Path("rela-curves"))
    arguments = parser.parse_args()
    digits = arguments.output / "digits"
    write_digits(digits, range(10))
    workspace = Workspace(arguments.output / "workspace")
    given = {name: str(getattr(arguments, name).resolve()) for name in ("images", "weights")}
    given["digits"] = str(digits.resolve())
    result = run_recipe(workspace, load_recipe(RECIPE, workspace, given))
    if result.exit_status:
        raise SystemExit(describe_failures(result))
    good = workspace.run(GOOD)
    for name in TITLES:
        run = workspace.run(name)
        draw(run, good, DOCS / f"curves-{name}.png")
        last = run.records[-1]
        print(
            f"{name}: online accuracy {100 * last['online_accuracy']:.1f} %, effective rank "
            f"{last['effective_rank']:.1f}"
        )


def draw(run: Run, good: Run, path: Path) -> None:
    """Loss and online accuracy of each epoch; those of the good run behind them in grey."""
    figure = Figure(figsize=(6.4, 2.3), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    figure.suptitle(TITLES[run.name], fontsize=9)
    if run is not good and run.name != GOOD:
        curve(loss, good, "loss", 1, GREY, GREY)
        curve(accuracy, good, "online_accuracy", 100, GREY, GREY)
    curve(loss, run, "loss", 1, STAGE_1, STAGE_2)
    curve(accuracy, run, "online_accuracy", 100, STAGE_1, STAGE_2)
    accuracy.axhline(10, color="black", linewidth=0.8, linestyle=":")
    accuracy.annotate("chance", (1, 10.5), fontsize=7)
    for axes, label, limits in (
        (loss, "loss", (-1.05, 1.05)),
        (accuracy, "online accuracy, %", (0, 80)),
    ):
        axes.set(xlabel="epoch", ylim=limits)
        axes.set_title(label, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    handles = [loss.plot([], [], color=c, label=t)[0] for c, t in legend(run)]
    loss.legend(handles=handles, fontsize=7, frameon=False)
    figure.savefig(path, dpi=110)


def legend(run: Run) -> list[tuple[str, str]]:
    """(colour, words) of what a picture shows."""
    stages = [(STAGE_1, "stage 1"), (STAGE_2, "stage 2")]
    return stages[run.content.prior is None :] + [(GREY, "the good run")] * (run.name != GOOD)


def curve(axes, run: Run, key: str, factor: float, first: str, second: str) -> None:
    """One point an epoch, in the colour of its stage."""
    handover = run.content.handover_step or 0
    for is_first, colour in ((True, first), (False, second)):
        chosen = [r for r in run.records if (r["step"] <= handover) == is_first]
        epochs = [r["epoch"] + 1 for r in chosen]
        axes.plot(epochs, [factor * r[key] for r in chosen], ".-", color=colour, markersize=4)


if __name__ == "__main__":
    main()
