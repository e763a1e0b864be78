"""The whole method on scikit-learn's handwritten digits: does a prior make training cheaper?

A small prior is trained on the digits 0 to 4. Then a new model is trained on all ten digits, with and
without that prior, at two budgets and with several seeds, and every run is evaluated alike.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.errors import UnavailableError, require
from rela.sources.image_folder import make_output_folder
from rela.stages.convert import convert
from rela.stages.display import Spread, format_table
from rela.stages.embed.embed import embed
from rela.stages.evaluate.evaluate import evaluate_run
from rela.stages.priors.requests import prior_request
from rela.stages.settings import ConvertSettings
from rela.stages.train.train import train
from rela.stages.workspace.run import Run
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

BUDGETS_EPOCHS = (3, 5)
PRIOR_EPOCHS = 10
PRIOR_DIGITS = 5
HANDOVER = 0.75  # too few steps here for the adaptive rule, which needs hundreds
_VAL_SHARE = 5  # every fifth image
PLAIN, RELA = "byol", "rela + byol"


@dataclass(frozen=True)
class DemoRun:
    """One evaluated run: accuracies in [0, 1], seconds with everything counted."""

    kind: str
    epochs: int
    seed: int
    knn20: float
    linear: float
    total_seconds: float


@dataclass(frozen=True)
class DemoResult:
    """Every run, the cost of the prior (paid once, and by others for a public one), the picture."""

    runs: list[DemoRun]
    prior_seconds: float
    plot: Path
    seconds: float


def demo(output: Path, num_seeds: int = 3, say: Callable[[str], None] = print) -> DemoResult:
    """Run the demonstration in `output`; what is finished there already is reused."""
    start = time.perf_counter()
    for package in ("matplotlib", "sklearn"):
        require(package, "demo", "the demo", UnavailableError)
    make_output_folder(output)
    workspace = Workspace(output / "workspace")
    write_digits(output / "digits", range(10))
    write_digits(output / "digits-0-4", range(PRIOR_DIGITS))
    digits = convert(workspace, output / "digits", ConvertSettings(), say=say).artifact
    few_digits = convert(workspace, output / "digits-0-4", ConvertSettings(), say=say).artifact

    prior_settings = TrainSettings(prior="none", epochs=PRIOR_EPOCHS, devices="1")
    prior = train(workspace, few_digits, prior_settings, "prior-0-4", say=say).artifact
    embed(workspace, digits, prior_request(digits, prior.name), say=say)

    runs = []
    for seed in range(num_seeds):
        for epochs in BUDGETS_EPOCHS:
            for kind in (PLAIN, RELA):
                settings = TrainSettings(
                    prior="none" if kind == PLAIN else prior.name,
                    handover=None if kind == PLAIN else HANDOVER,
                    epochs=epochs,
                    seed=seed,
                    devices="1",
                )
                run = train(workspace, digits, settings, say=say).artifact
                runs.append(_measure(workspace, run, kind, epochs, seed, say))
    plot = draw(runs, output / "accuracy-against-seconds.png")
    prior_seconds = prior.total_seconds or math.nan
    return DemoResult(runs, prior_seconds, plot, time.perf_counter() - start)


def write_digits(folder: Path, digits: range) -> None:
    """The chosen digits as class folders of 8×8 PNGs, every fifth image in val."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    for i, (pixels, digit) in enumerate(zip(data.images, data.target, strict=True)):
        if digit in digits:
            split = "val" if i % _VAL_SHARE == 0 else "train"
            path = folder / split / str(digit) / f"{i:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8)).save(path)


def format_result(result: DemoResult) -> str:
    """The table over seeds, the comparison in words, and where the picture is."""
    header = ["training", "epochs", "20-NN %", "linear %", "seconds, everything counted"]
    rows = [
        [kind, epochs, *(_mean_and_spread(result.runs, kind, epochs, f) for f in _FIGURES)]
        for epochs in BUDGETS_EPOCHS
        for kind in (PLAIN, RELA)
    ]
    return "\n".join(
        [
            format_table(header, rows),
            "",
            f"mean ± standard deviation over {len({r.seed for r in result.runs})} seeds; seconds count "
            "converting, embedding, targets and training",
            f"the prior itself took {result.prior_seconds:.0f} s, once",
            _in_words(result.runs),
            f"picture: {result.plot}",
        ]
    )


def draw(runs: list[DemoRun], path: Path) -> Path:
    """Accuracy of the linear probe against total seconds, a dot per run, a line through the means."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for kind, colour, marker in ((RELA, "#0b6e4f", "o"), (PLAIN, "#9a5b00", "s")):
        mine = [run for run in runs if run.kind == kind]
        axes.scatter(
            [r.total_seconds for r in mine], [100 * r.linear for r in mine], s=28, c=colour,
            marker=marker, alpha=0.55, linewidths=0,
        )  # fmt: skip
        means = [[r for r in mine if r.epochs == e] for e in BUDGETS_EPOCHS]
        axes.plot(
            [statistics.fmean(r.total_seconds for r in group) for group in means],
            [100 * statistics.fmean(r.linear for r in group) for group in means],
            color=colour, marker=marker, label=kind,
        )  # fmt: skip
    axes.set_xlabel("seconds: convert + embed + targets + training")
    axes.set_ylabel("linear probe, top-1 %")
    axes.set_title("Handwritten digits: accuracy against cost, with and without a prior")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left")
    FigureCanvasAgg(figure)
    figure.savefig(path)
    return path


_FIGURES: tuple[Callable[[DemoRun], float], ...] = (
    lambda run: 100 * run.knn20,
    lambda run: 100 * run.linear,
    lambda run: run.total_seconds,
)


def _measure(
    workspace: Workspace,
    run: Run,
    kind: str,
    epochs: int,
    seed: int,
    say: Callable[[str], None],
) -> DemoRun:
    accuracies: dict[str, Any] = evaluate_run(workspace, run, say=say).results["accuracies"]
    return DemoRun(
        kind=kind,
        epochs=epochs,
        seed=seed,
        knn20=accuracies["knn20"]["top1"],
        linear=accuracies["linear-reference"]["top1"],
        total_seconds=run.total_seconds or math.nan,
    )


def _mean_and_spread(
    runs: list[DemoRun], kind: str, epochs: int, figure: Callable[[DemoRun], float]
) -> str:
    values = [figure(run) for run in runs if (run.kind, run.epochs) == (kind, epochs)]
    return Spread.of(values).words(1)


def _in_words(runs: list[DemoRun]) -> str:
    """What the table says, computed from it: who is ahead at each budget, over how many seeds."""
    sentences = []
    for epochs in BUDGETS_EPOCHS:
        pairs = [
            (rela.linear - plain.linear, rela.total_seconds - plain.total_seconds)
            for rela in runs
            for plain in runs
            if (rela.kind, plain.kind) == (RELA, PLAIN)
            and rela.seed == plain.seed
            and rela.epochs == plain.epochs == epochs
        ]
        ahead = sum(gain > 0 for gain, _ in pairs)
        gain = 100 * statistics.fmean(g for g, _ in pairs)
        extra = statistics.fmean(s for _, s in pairs)
        sentences.append(
            f"at {epochs} epochs the prior is worth {gain:+.1f} points of linear accuracy, ahead on "
            f"{ahead} of {len(pairs)} seeds, for {extra:+.1f} s"
        )
    return "\n".join(sentences)
