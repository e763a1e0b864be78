"""The cost at which training with a prior reaches the best accuracy of training without it."""

import bisect
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rela.stages.display import Spread
from rela.stages.report.run_record import RunRecord

ONLINE = "online_accuracy"
PREFERRED = ("linear", "linear-reference", "knn20")  # order of choice among protocols of all runs
COSTS = ("seconds", "images")

Curve = tuple[Sequence[float], Sequence[float]]  # costs, ascending, and values


@dataclass(frozen=True)
class Saving:
    """Cost of one way of training (`line`) as a share of the baseline's cost, at equal accuracy.

    - `measure`: "online_accuracy", over the epochs of each run, or a protocol of `rela eval`, over runs
      with several budgets;
    - `cost`: "seconds" or "images", everything counted;
    - `aims`: the best accuracy of each baseline, by seed;
    - `shares`: the cost of reaching the aim over the baseline's, for the seeds that reach it;
    - `bests`: the best accuracy of this line, by seed;
    - `is_bound`: some share is that of the cheapest run, so it is an upper bound;
    - `is_chance`: some aim is no better than chance, so reaching it shows nothing;
    - `images_seen`: in training, by the runs of `bests` and of `aims`, on average over seeds.
    """

    line: str
    measure: str
    cost: str
    aims: dict[int, float]
    shares: dict[int, float]
    bests: dict[int, float]
    is_bound: bool
    is_chance: bool = False
    images_seen: tuple[float, float] = (0, 0)

    @property
    def mean(self) -> float | None:
        """Mean share; None if some seed missed its aim or some aim is no better than chance."""
        if self.is_chance or not self.shares or len(self.shares) < len(self.aims):
            return None
        return Spread.of(list(self.shares.values())).mean

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds; None for a single seed."""
        return Spread.of(list(self.shares.values())).std if self.shares else None


def cost_of_reaching(curve: Curve, aim: float) -> tuple[float, bool] | None:
    """The first cost at which the interpolated curve reaches `aim`; None if it never does.

    Also returns whether that is the first point, before which nothing was measured.
    """
    before: tuple[float, float] | None = None
    for cost, value in zip(*curve, strict=True):
        if value >= aim:
            if before is None:
                return cost, True
            share = (aim - before[1]) / (value - before[1])
            return before[0] + share * (cost - before[0]), False
        before = cost, value
    return None


def best_of(curve: Curve) -> tuple[float, float]:
    """The largest value, and the cost at which it was first reached."""
    costs, values = curve
    value = max(values)
    return value, costs[list(values).index(value)]


def overtaking(curve: Curve, baseline: Curve) -> float | None:
    """The cost from which the interpolated `curve` stays above `baseline`; None if it does not.

    They are compared at every point of either within the range of both; 0: from the beginning.
    """
    low, high = max(curve[0][0], baseline[0][0]), min(curve[0][-1], baseline[0][-1])
    costs = sorted({c for c in (*curve[0], *baseline[0], low, high) if low <= c <= high})
    if not costs:
        return None
    ahead = [value_at(curve, cost) - value_at(baseline, cost) for cost in costs]
    if ahead[-1] <= 0:
        return None
    behind = [i for i, difference in enumerate(ahead) if difference <= 0]
    if not behind:
        return 0.0
    i = behind[-1]
    share = -ahead[i] / (ahead[i + 1] - ahead[i])
    return costs[i] + share * (costs[i + 1] - costs[i])


def value_at(curve: Curve, cost: float) -> float:
    """The curve's value at `cost`: linear between points, constant beyond them."""
    costs, values = curve
    after = bisect.bisect_left(costs, cost)
    if after == 0:
        return values[0]
    if after == len(costs):
        return values[-1]
    share = (cost - costs[after - 1]) / (costs[after] - costs[after - 1])
    return values[after - 1] + share * (values[after] - values[after - 1])


def common_measure(runs: Iterable[RunRecord]) -> str | None:
    """The preferred protocol by which all these runs were evaluated; None without one."""
    of_each = [run.accuracies for run in runs]
    shared = set(of_each[0]).intersection(*of_each[1:]) if of_each else set()
    return next((p for p in PREFERRED if p in shared), min(shared, default=None))


def savings_of(runs: Sequence[RunRecord]) -> list[Saving]:
    """Savings of every line with a prior over the baseline of its experiment, by measure and cost."""
    found = []
    for experiment in dict.fromkeys(run.experiment for run in runs):
        mine = [run for run in runs if run.experiment == experiment]
        baselines = [run for run in mine if run.is_baseline]
        for line in dict.fromkeys(run.line for run in mine if not run.is_baseline):
            candidates = [run for run in mine if run.line == line]
            for measure in (ONLINE, common_measure([*candidates, *baselines])):
                if measure is not None:
                    found += [
                        saving
                        for cost in COSTS
                        if (saving := _saving(line, candidates, baselines, measure, cost))
                    ]
    return found


def _saving(
    line: str, candidates: list[RunRecord], baselines: list[RunRecord], measure: str, cost: str
) -> Saving | None:
    aims: dict[int, float] = {}
    shares: dict[int, float] = {}
    bests: dict[int, float] = {}
    is_bound = is_chance = False
    seen: list[tuple[int, int]] = []
    for seed in sorted({run.seed for run in candidates} & {run.seed for run in baselines}):
        without = [run for run in baselines if run.seed == seed]
        having = [run for run in candidates if run.seed == seed]
        aim, mine = full_curve(without, measure, cost), full_curve(having, measure, cost)
        if not aim[0] or not mine[0]:
            continue
        aims[seed], aim_cost = best_of(aim)
        bests[seed], _ = best_of(mine)
        seen.append((_best_run(having, measure), _best_run(without, measure)))
        is_chance = is_chance or aims[seed] <= _by_chance(baselines[0], measure)
        reached = cost_of_reaching(mine, aims[seed])
        if reached is not None:
            shares[seed] = reached[0] / aim_cost
            is_bound = is_bound or reached[1]
    if not aims:
        return None
    ours, theirs = (statistics.fmean(each) for each in zip(*seen, strict=True))
    return Saving(line, measure, cost, aims, shares, bests, is_bound, is_chance, (ours, theirs))


def _best_run(runs: list[RunRecord], measure: str) -> int:
    """Images seen in training by the run with the best accuracy, or, if it is online, the largest budget."""
    budgets = {run.name: run.num_images_seen - run.num_images_embedded for run in runs}
    if measure == ONLINE:
        return max(budgets.values())
    best = max(run.accuracies[measure] for run in runs)
    return min(budgets[run.name] for run in runs if run.accuracies[measure] == best)


def _by_chance(run: RunRecord, measure: str) -> float:
    """Chance accuracy: of training images for online accuracy, else of held-out images."""
    return run.by_chance.get("train" if measure == ONLINE else "val", 0.0)


def full_curve(runs: list[RunRecord], measure: str, cost: str) -> Curve:
    """The curve of one line and seed: the largest budget's run over epochs, or all runs' final values."""
    if measure == ONLINE:
        return max(runs, key=lambda run: run.num_images_seen).course(ONLINE, cost)
    ordered = sorted(runs, key=lambda run: run.num_images_seen)
    costs = [r.total_seconds if cost == "seconds" else float(r.num_images_seen) for r in ordered]
    return costs, [run.accuracies[measure] for run in ordered]
