"""How much cheaper does a prior make training? Accuracy against cost, everything counted.

Trains a small prior on one data set, then models on another with and without it, at several budgets
(shares of the images that each epoch draws, as in table 1 of arXiv 2405.14669) and seeds, and
evaluates each. Prints one row per variant and budget: linear and 20-NN accuracy, total seconds (convert,
embed, targets, both stages, data wait, checkpoints), images seen; and the budget and the seconds at
which each variant reaches the full-budget baseline.

    python benchmarks/cost_to_accuracy.py --pair digits
    python benchmarks/cost_to_accuracy.py --pair letters-scripts --data FOLDER

Both need timm. `letters-scripts` wants FOLDER/letters and FOLDER/scripts: class folders, with train/ and
val/. What --results holds is not done again, so a campaign may be interrupted, and several
processes may share one: give each its own --seeds, and one of them --report at the end.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rela.stages.convert import convert
from rela.stages.demo import PRIOR_DIGITS, write_digits
from rela.stages.display import Spread, format_table
from rela.stages.embed.embed import embed
from rela.stages.evaluate.evaluate import evaluate_run
from rela.stages.priors.requests import prior_request
from rela.stages.report.savings import cost_of_reaching
from rela.stages.requests import Convert, Train
from rela.stages.settings import EmbedSettings, EvaluateSettings
from rela.stages.train.train import train
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.run import Run
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

PROBES = EvaluateSettings(protocol=("knn20", "linear-reference"))
NUM_CROPS = 8
WIDTH = 32  # components of the targets; other widths are compared at half of the budget


@dataclass(frozen=True)
class Pair:
    """A prior's data set and training, and the target's."""

    prior_data: str
    target_data: str
    prior: TrainSettings
    target: dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """A way to train: which prior, and settings that differ from the pair's."""

    name: str
    prior: str  # "none", "random" or "trained"
    changes: dict[str, Any] = field(default_factory=dict)


# Small batches: on a CPU an image costs the same in them, and more steps are made. Small networks that
# learn within minutes: timm's test_resnet has 0.4 million weights.
COMMON = {"batch_size": 32, "min_scale": 0.5, "devices": "1"}
DIGITS = {"model": "timm:regnetx_002", "image_size": 32, **COMMON}
GLYPHS = {"model": "timm:test_resnet", **COMMON}
PAIRS = {
    "digits": Pair(
        "digits-0-4",
        "digits",
        TrainSettings(
            prior="none", method="supervised", epochs=20,
            optimizer="adamw", lr=1e-3, schedule="constant", weight_decay=0.05, **DIGITS,
        ),
        {"epochs": 10, **DIGITS},
    ),
    "letters-scripts": Pair(
        "letters",
        "scripts",
        TrainSettings(
            prior="none", method="supervised", epochs=8,
            optimizer="adamw", lr=2e-3, schedule="cosine", weight_decay=0.05,
            **GLYPHS | {"min_scale": 0.7},
        ),
        {"epochs": 2, **GLYPHS},
    ),
}  # fmt: skip

# What the variants with a prior share; each of AT_HALF differs in one of them.
CENTRE = {"handover": 0.5, "target_width": WIDTH}
BASELINE = Variant("no prior", "none")
RELA = Variant("prior", "trained", CENTRE)
# At every budget, and (the choices within the method) at half of it.
EVERYWHERE = (BASELINE, Variant("random prior", "random", CENTRE), RELA)
AT_HALF = tuple(
    Variant(f"prior, {name}", "trained", CENTRE | changes)
    for name, changes in {
        "16 components": {"target_width": 16},
        "64 components": {"target_width": 64},
        "all components": {"target_width": None},
        "W learned": {"head": "learned"},
        "hand-over 0.75": {"handover": 0.75},
        "adaptive hand-over": {"handover": None},
        "stage 1 alone": {"method": "none", "handover": None},
        f"{NUM_CROPS} crops": {"crops": NUM_CROPS},
    }.items()
)


@dataclass(frozen=True)
class Outcome:
    """One evaluated run; accuracies in [0, 1]."""

    variant: str
    budget: float
    seed: int
    linear: float
    knn20: float
    total_seconds: float
    images_seen: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pair", choices=sorted(PAIRS), default="digits")
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.1, 0.2, 0.5, 1.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="of the full budget")
    parser.add_argument("--method", help="of stage 2 and of the baseline")
    parser.add_argument("--output", type=Path, default=Path("rela-benchmark"))
    parser.add_argument(
        "--results", type=Path, help="a JSON line for each run; what it holds is done"
    )
    parser.add_argument("--report", action="store_true", help="only show what is finished")
    arguments = parser.parse_args()
    pair = PAIRS[arguments.pair]
    settings = dict(pair.target)
    settings |= {k: v for k in ("epochs", "method") if (v := getattr(arguments, k)) is not None}

    workspace = Workspace(arguments.output / "workspace")
    results = arguments.results or arguments.output / f"{arguments.pair}.jsonl"
    if not arguments.report:
        campaign(workspace, results, pair, settings, arguments)
    print(report(read_results(results)))


def read_results(path: Path) -> list["Outcome"]:
    lines = path.read_text().splitlines() if path.is_file() else []
    return [Outcome(**json.loads(line)) for line in lines]


def campaign(
    workspace: Workspace, results: Path, pair: Pair, settings: dict[str, Any], arguments: Any
) -> None:
    prior_data, target = (
        prepare(workspace, name, arguments) for name in (pair.prior_data, pair.target_data)
    )
    prior = train(workspace, Train(prior_data.name, name="the-prior", **vars(pair.prior))).artifact
    done = {(o.variant, o.budget, o.seed) for o in read_results(results)}
    for seed in arguments.seeds:
        for budget in arguments.budgets:
            for variant in (*EVERYWHERE, *(AT_HALF if budget == 0.5 else ())):
                if (variant.name, budget, seed) not in done:
                    outcome = measure(workspace, target, prior, variant, budget, seed, settings)
                    line = json.dumps(asdict(outcome))
                    with open(results, "a") as file:  # one write: processes don't mix their lines
                        file.write(line + "\n")
                    print(line, flush=True)


def prepare(workspace: Workspace, name: str, arguments: Any) -> DataSet:
    """The data set `name`, converted; digits are written first."""
    if arguments.pair == "digits":
        source = arguments.output / name
        write_digits(source, range(PRIOR_DIGITS if name == "digits-0-4" else 10))
    else:
        source = arguments.data / name
    return convert(workspace, Convert(source)).artifact


def measure(
    workspace: Workspace, target: DataSet, prior: Run, variant: Variant, budget: float,
    seed: int, common: dict[str, Any],
) -> Outcome:  # fmt: skip
    changes = common | variant.changes
    crops = changes.get("crops", 0)
    if variant.prior == "trained":
        request = prior_request(target, prior.name)
        embed(workspace, target, request, EmbedSettings(crops=crops))
        changes |= {"crops": crops}
    named = {"none": "none", "random": "random", "trained": prior.name}[variant.prior]
    settings = TrainSettings(prior=named, data_ratio=budget, seed=seed, **changes)
    name = f"{slug(variant.name)}-{budget:g}-{seed}"
    run = train(workspace, Train(target.name, name=name, **vars(settings))).artifact
    accuracies: dict[str, Any] = evaluate_run(workspace, run, settings=PROBES).results["accuracies"]
    return Outcome(
        variant=variant.name,
        budget=budget,
        seed=seed,
        linear=accuracies["linear-reference"]["top1"],
        knn20=accuracies["knn20"]["top1"],
        total_seconds=run.total_seconds or math.nan,
        images_seen=run.num_images_seen,
    )


def slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


def report(found: list[Outcome]) -> str:
    """The table, and where each variant reaches the full-budget baseline."""
    header = ["training", "budget", "seeds", "linear %", "20-NN %", "seconds", "images seen"]
    order = [v.name for v in (*EVERYWHERE, *AT_HALF)]
    rows = []
    for variant in order:
        for budget in sorted({o.budget for o in found if o.variant == variant}):
            group = [o for o in found if (o.variant, o.budget) == (variant, budget)]
            rows.append([
                variant, f"{100 * budget:g} %", len(group),
                *(Spread.of([f(o) for o in group]).words(digits) for f, digits in FIGURES),
                f"{statistics.fmean(o.images_seen for o in group):,.0f}",
            ])  # fmt: skip
    return "\n".join([format_table(header, rows), "", *crossings(found)])


FIGURES: tuple[tuple[Callable[[Outcome], float], int], ...] = (
    (lambda o: 100 * o.linear, 1),
    (lambda o: 100 * o.knn20, 1),
    (lambda o: o.total_seconds, 0),
)


def crossings(found: list[Outcome]) -> list[str]:
    """Per variant and seed: the cost at which it has the full-budget baseline's linear accuracy."""
    lines = []
    for variant in EVERYWHERE[1:]:
        shares: dict[str, list[float]] = {"total_seconds": [], "images_seen": []}
        never = 0
        for seed in sorted({o.seed for o in found}):
            aims = [o for o in found if (o.variant, o.budget, o.seed) == (BASELINE.name, 1.0, seed)]
            mine = [o for o in found if (o.variant, o.seed) == (variant.name, seed)]
            mine.sort(key=lambda o: o.budget)
            if not aims or not mine:
                continue
            for cost, reached in shares.items():
                curve = [float(getattr(o, cost)) for o in mine], [o.linear for o in mine]
                at = cost_of_reaching(curve, aims[0].linear)
                if at is None:
                    never += cost == "total_seconds"
                else:
                    reached.append(at[0] / float(getattr(aims[0], cost)))
        words = "; ".join(
            f"{Spread.of(values).percent(0)} % of its {cost.replace('_', ' ')}"
            for cost, values in shares.items()
            if values
        )
        missed = f"; never on {never} seeds" if never else ""
        lines.append(
            f"{variant.name}: the full-budget baseline's linear accuracy at {words}{missed}"
        )
    return lines


if __name__ == "__main__":
    main()
