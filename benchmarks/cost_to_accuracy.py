"""Is the whole better than either half, and at which share of the cost? Real images, a real prior.

    python -m benchmarks.image_sets fashion --output images
    python -m benchmarks.image_sets lite0 --output lite0.pth
    python -m benchmarks.cost_to_accuracy fashion --images images/fashion --weights lite0.pth

Trains the algorithm alone, stage 1 alone, both with the paper's hand-over, and both as `rela train` does by
default, with three seeds and at several budgets (shares of the images that each epoch draws, as in table 1
of arXiv 2405.14669), and other algorithms. The runs are those of cost_to_accuracy.toml and of the files
beside it that a pair names; finished ones are reused, so a campaign may be interrupted. Prints a table of two
probes with what any of it has to beat: raw pixels, the untrained student, and the prior itself. `--report`
only prints; `--seeds 0` runs only that seed, so that several processes can share the work.
"""

import argparse
import json
import string
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rela.data.loader import CenterCropLoader
from rela.evaluation.knn import knn_accuracy
from rela.evaluation.logistic import logistic_probe
from rela.evaluation.protocols import PROTOCOLS
from rela.methods import method_class
from rela.stages.display import Spread, format_table
from rela.stages.evaluate.evaluate import evaluate
from rela.stages.recipe.jobs import load_recipe
from rela.stages.recipe.run import describe_failures, run_recipe
from rela.stages.report.savings import cost_of_reaching
from rela.stages.requests import Evaluate
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.run import Run
from rela.stages.workspace.workspace import Workspace

PRIOR = "timm:tf_efficientnet_lite0"
PROBES = ("knn20", "linear")
ALONE, WHOLE = "alone", "both stages"
BILINEAR = 2  # Pillow's number


@dataclass(frozen=True)
class Pair:
    """Input size in pixels, epochs of the full budget, the student, and what to try beside what decides."""

    size: int
    epochs: int
    seeds: tuple[int, ...] = (0, 1, 2)
    more: tuple[str, ...] = ("budgets", "algorithms")
    model: str = "timm:test_resnet"
    batch_size: int = 32


PAIRS = {
    "fashion": Pair(28, 5),
    "emoji": Pair(32, 10),
    "clipart": Pair(32, 10),
    "fashion-all": Pair(28, 6, seeds=(0,), more=()),  # 11,250 steps
    "emoji-resnet18": Pair(  # a GPU
        64, 64, more=("budgets", "baselines"), model="resnet18", batch_size=128
    ),
}


@dataclass(frozen=True)
class Outcome:
    """One evaluated run; accuracies in [0, 1], costs with everything counted; CPU seconds of all cores."""

    method: str
    training: str
    budget: float
    seed: int
    knn20: float
    linear: float
    seconds: float
    images_seen: int
    cpu_seconds: float | None = None


def main() -> None:
    """Run what is missing, then print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pair", choices=sorted(PAIRS))
    parser.add_argument(
        "--images", type=Path, required=True, help="class folders in train/ and val/"
    )
    parser.add_argument(
        "--weights", type=Path, required=True, help="EfficientNet-Lite0 by timm's names"
    )
    parser.add_argument("--output", type=Path, default=Path("rela-proof"))
    parser.add_argument("--results", type=Path, help="where to write a JSON line for each run")
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="only these (default: all of the pair)"
    )
    parser.add_argument("--report", action="store_true", help="only show what is finished")
    arguments = parser.parse_args()
    workspace = Workspace(arguments.output / "workspace")
    if not arguments.report:
        campaign(workspace, arguments)
    dataset = workspace.dataset(arguments.pair)
    found = [outcome(run) for run in workspace.runs() if run.content.dataset == arguments.pair]
    found = [o for o in found if o is not None]
    if arguments.results:
        lines = [json.dumps(asdict(o)) + "\n" for o in sorted(found, key=lambda o: str(asdict(o)))]
        arguments.results.write_text("".join(lines))
    untrained = references(workspace, dataset, PAIRS[arguments.pair], arguments.weights)
    print(report(found, untrained))


def campaign(workspace: Workspace, arguments: argparse.Namespace) -> None:
    """Run the jobs of the recipe that are missing."""
    seeds = arguments.seeds or PAIRS[arguments.pair].seeds
    recipe = arguments.output / f"{arguments.pair}-{'-'.join(map(str, seeds))}.toml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(recipe_of(arguments.pair, seeds))
    given = {name: str(getattr(arguments, name).resolve()) for name in ("images", "weights")}
    result = run_recipe(workspace, load_recipe(recipe, workspace, given))
    if result.exit_status:
        raise SystemExit(describe_failures(result))


def recipe_of(name: str, seeds: Sequence[int]) -> str:
    """The text of a pair's recipe."""
    pair, deciding = PAIRS[name], Path(__file__).with_suffix(".toml")
    files = [deciding, *(deciding.with_stem(f"{deciding.stem}_{more}") for more in pair.more)]
    template = "\n".join(file.read_text() for file in files)
    values = {**asdict(pair), "name": name, "seeds": list(seeds)}
    return string.Template(template).substitute(values)


def outcome(run: Run) -> Outcome | None:
    """What a run came to; None before its evaluation."""
    accuracies, settings = run.evaluation.accuracies, run.settings
    if not all(probe in accuracies for probe in PROBES) or run.total_seconds is None:
        return None
    if run.content.prior is None:
        training = ALONE
    elif settings.method == "none":
        training = "stage 1 alone"
    else:
        default = method_class(settings.method).rela_anchor
        weights = {0.0: "paper's hand-over", default: WHOLE}
        training = weights.get(settings.anchor, f"{WHOLE}, target loss × {settings.anchor:g}")
        training += ", random prior" if run.content.prior.startswith("random:") else ""
    if settings.hyperparameters == "paper":
        training += ", the paper's hyperparameters"
    method = "byol" if settings.method == "none" else settings.method
    knn20, linear = (float(accuracies[probe]["top1"]) for probe in PROBES)
    cost = run.total_seconds, run.num_images_seen, run.cpu_seconds
    return Outcome(method, training, settings.data_ratio, settings.seed, knn20, linear, *cost)


def references(
    workspace: Workspace, dataset: DataSet, pair: Pair, weights: Path
) -> dict[str, dict[str, float]]:
    """Accuracy by probe of what needs no training."""
    found = {"raw pixels": accuracies_of_pixels(dataset, pair.size)}
    for name, prior in (
        ("the untrained student", {"prior": f"random:{pair.model}", "image_size": pair.size}),
        ("the prior itself", {"prior": PRIOR, "image_size": 64, "weights": weights}),
    ):
        request = Evaluate(dataset=dataset.name, **prior)
        evaluation = evaluate(workspace, request, say=lambda line: None)[0]
        results = evaluation.results["accuracies"]
        found[name] = {probe: results[probe]["top1"] for probe in PROBES}
        if evaluation.chance is not None:
            found["chance"] = dict.fromkeys(PROBES, evaluation.chance.top1)
    return found


def accuracies_of_pixels(dataset: DataSet, size: int) -> dict[str, float]:
    """Both probes on the pixels of centre crops, minus 0.5."""
    data: list[Any] = []
    for split in ("train", "val"):
        beton = dataset.open(split)
        rows = np.array_split(np.arange(len(beton)), max(1, len(beton) // 256))
        crops = [images for _, images in CenterCropLoader(beton, rows, size, size, BILINEAR)]
        data += [torch.cat(crops).flatten(1).float() / 255 - 0.5, torch.from_numpy(beton.labels)]
    num_classes = len(dataset.content.class_names)
    knn, logistic = (PROTOCOLS[probe] for probe in PROBES)
    linear = logistic_probe(*data, num_classes, logistic)
    return {"knn20": knn_accuracy(*data, num_classes, knn), "linear": linear["top1"]}


def report(found: list[Outcome], references: dict[str, dict[str, float]]) -> str:
    """The table, and where each training reaches the full-budget accuracy of the algorithm alone."""
    header = [
        "training",
        "budget",
        "seeds",
        "20-NN %",
        "linear %",
        "images seen",
        "seconds",
        "CPU seconds",
    ]
    rows: list[list[Any]] = [
        [name, "", "", *(f"{100 * accuracy[probe]:.1f}" for probe in PROBES), *[""] * 3]
        for name, accuracy in references.items()
    ]
    keys = sorted({(o.method, o.training, o.budget) for o in found})
    for method, training, budget in keys:
        group = [o for o in found if (o.method, o.training, o.budget) == (method, training, budget)]
        worked = [o.cpu_seconds for o in group if o.cpu_seconds is not None]
        rows.append([
            f"{method}, {training}", f"{100 * budget:g} %", len(group),
            *(Spread.of([getattr(o, probe) for o in group]).percent(1) for probe in PROBES),
            f"{np.mean([o.images_seen for o in group]):,.0f}",
            Spread.of([o.seconds for o in group]).words(0),
            Spread.of(worked).words(0) if len(worked) == len(group) else "–",
        ])  # fmt: skip
    return "\n".join([format_table(header, rows), "", *crossings(found)])


def crossings(found: list[Outcome]) -> Iterable[str]:
    """Share of the cost at which both stages reach the full-budget accuracy of the algorithm alone."""
    for probe in PROBES:
        for cost in ("images_seen", "seconds", "cpu_seconds"):
            shares, missed = [], 0
            for seed in sorted({o.seed for o in found}):
                mine = [o for o in found if (o.seed, o.method) == (seed, "byol")]
                mine = [o for o in mine if getattr(o, cost) is not None]
                aims = [o for o in mine if o.training == ALONE and o.budget == 1]
                curve = sorted(
                    (getattr(o, cost), getattr(o, probe)) for o in mine if o.training == WHOLE
                )
                if not aims or len(curve) < 2:
                    continue
                reached = cost_of_reaching(tuple(zip(*curve, strict=True)), getattr(aims[0], probe))
                if reached is None:
                    missed += 1
                else:
                    shares.append(reached[0] / getattr(aims[0], cost))
            if shares or missed:
                words = f"{Spread.of(shares).percent(0)} %" if shares else "-"
                never = f", never on {missed} seeds" if missed else ""
                yield (
                    f"both stages reach the algorithm's {probe} accuracy at {words} of its "
                    f"{cost.replace('_', ' ')}{never} ({len(shares) + missed} seeds)"
                )


if __name__ == "__main__":
    main()
