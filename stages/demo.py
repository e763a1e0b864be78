"""The method on scikit-learn's handwritten digits: does a prior make training cheaper?

The recipe in `demo.toml` trains a small prior on the digits 0 to 4, then models on all ten digits,
with and without that prior, at two budgets and with several seeds, and evaluates every run.
"""

import math
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError, RelaError, UnavailableError, require
from rela.pipeline.files import write_atomic
from rela.result import Result, Table
from rela.sources.splits.tree import make_output_folder
from rela.stages.display import Spread, format_table
from rela.stages.evaluate.groups import grouped
from rela.stages.recipe.jobs import load_recipe
from rela.stages.recipe.run import describe_failures, run_recipe
from rela.stages.report.lines import lines_of
from rela.stages.report.plots import Plots
from rela.stages.report.run_record import RunRecord, record_of
from rela.stages.workspace.workspace import Workspace

RECIPE = Path(__file__).with_name("demo.toml")
PRIOR = "prior-0-4"
PRIOR_DIGITS = 5
PLAIN, RELA = "byol", "rela + byol"
_VAL_SHARE = 5  # every fifth image
_LINEAR = "linear"


@dataclass(frozen=True)
class DemoRun:
    """One evaluated run: accuracies in [0, 1], seconds of everything."""

    kind: str
    epochs: int
    seed: int
    knn20: float
    linear: float
    total_seconds: float


@dataclass(frozen=True, repr=False)
class DemoResult(Result):
    """Every run, the one-time cost of training the prior, and the plot."""

    runs: list[DemoRun]
    prior_seconds: float
    plot: Path
    seconds: float

    def shown(self) -> dict[str, Any]:
        """How many runs there are, and where the plot is."""
        return {"runs": len(self.runs), "seconds": round(self.seconds, 1), "plot": self.plot}

    def tables(self) -> dict[str, Table]:
        """Means over the seeds."""
        header = ("training", "epochs", "20-NN %", "linear %", "seconds, everything counted")
        rows = [
            [
                group[0].kind,
                group[0].epochs,
                Spread.of([run.knn20 for run in group]).percent(1),
                Spread.of([run.linear for run in group]).percent(1),
                Spread.of([run.total_seconds for run in group]).words(1),
            ]
            for group in grouped(self.runs, lambda run: [run.kind, run.epochs])
        ]
        return {"runs": (header, rows)}


def demo(output: Path, num_seeds: int = 3, say: Callable[[str], None] = print) -> DemoResult:
    """Run the demonstration in `output`, where finished jobs are reused and unfinished ones resumed.

    The recipe is written there with seeds 0 to `num_seeds` - 1. Raises UnavailableError if the extra is
    not installed, and RelaError with the exit status of the first failed job.
    """
    if num_seeds < 1:
        raise ChoiceError(f"--seeds {num_seeds}: expected an integer of at least 1")
    start = time.perf_counter()
    for package in ("matplotlib", "sklearn"):
        require(package, "demo", "the demo", UnavailableError)
    make_output_folder(output)
    write_digits(output / "digits", range(10))
    write_digits(output / "digits-0-4", range(PRIOR_DIGITS))
    seeds = f"seed = {list(range(num_seeds))}"
    recipe = re.sub(r"^seed = .*$", seeds, RECIPE.read_text(encoding="utf-8"), flags=re.M)
    write_atomic(output / RECIPE.name, recipe.encode())
    workspace = Workspace(output / "workspace")
    result = run_recipe(workspace, load_recipe(output / RECIPE.name, workspace), say)
    if result.exit_status:
        failure = RelaError(describe_failures(result))
        failure.exit_status = result.exit_status
        raise failure

    names = [name for row in result.results if PRIOR not in row.runs for name in row.runs]
    records = [record_of(workspace.run(name)) for name in names]
    plot = _draw(records, output / "accuracy-against-seconds.png")
    prior_seconds = workspace.run(PRIOR).total_seconds or math.nan
    runs = sorted(map(_demo_run, records), key=lambda run: (run.seed, run.epochs))
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
    """The table over seeds, the comparison in words, and the path of the plot."""
    return "\n".join(
        [
            format_table(*result.tables()["runs"]),
            "",
            f"mean ± standard deviation over {len({r.seed for r in result.runs})} seeds; seconds count "
            "converting, embedding, targets and training",
            f"the prior itself took {result.prior_seconds:.0f} s, once",
            *(_comparison(group) for group in grouped(result.runs, lambda run: run.epochs)),
            f"picture: {result.plot}",
        ]
    )


def _demo_run(record: RunRecord) -> DemoRun:
    return DemoRun(
        kind=PLAIN if record.is_baseline else RELA,
        epochs=record.budget[0],
        seed=record.seed,
        knn20=record.accuracies["knn20"],
        linear=record.accuracies[_LINEAR],
        total_seconds=record.total_seconds,
    )


def _draw(records: list[RunRecord], path: Path) -> Path:
    """The figure of `rela report`: linear accuracy against seconds, a line through the means."""
    numbers = {record.name: number for number, record in enumerate(records)}
    figure = Plots("digits", lines_of(records), numbers).final_against_cost("seconds", _LINEAR)
    assert figure is not None, "every run is evaluated"
    write_atomic(path, figure.png)
    return path


def _comparison(runs: list[DemoRun]) -> str:
    """The prior's effect at one budget, over pairs of runs with equal seeds."""
    by_kind = [{run.seed: run for run in runs if run.kind == kind} for kind in (RELA, PLAIN)]
    pairs = [(by_kind[0][seed], by_kind[1][seed]) for seed in by_kind[0]]
    gains = [with_prior.linear - without.linear for with_prior, without in pairs]
    extra = statistics.fmean(a.total_seconds - b.total_seconds for a, b in pairs)
    return (
        f"at {runs[0].epochs} epochs the prior is worth {100 * statistics.fmean(gains):+.1f} points of "
        f"linear accuracy, ahead on {sum(gain > 0 for gain in gains)} of {len(gains)} seeds, for "
        f"{extra:+.1f} s"
    )
