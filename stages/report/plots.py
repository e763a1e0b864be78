"""The figures of a report: accuracy against cost, training curves, costs, features."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rela.evaluation.protocols import title_of
from rela.stages.evaluate.groups import grouped
from rela.stages.report.accuracy import Level
from rela.stages.report.figures import INK, Figure, begin_drawing, draw_level, finish_drawing
from rela.stages.report.lines import Line
from rela.stages.report.run_record import RunRecord
from rela.stages.report.savings import ONLINE, full_curve, overtaking

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rela.stages.report.feature_map import FeatureMap

_COST_NAMES = {"seconds": "seconds, everything counted", "images": "images seen"}
COURSES = {  # axis label, factor, caption
    "loss": (
        "loss",
        1,
        "Loss of each epoch: stage 1's is 1 − cosine to the targets, stage 2's the algorithm's own. "
        "Diamonds: the hand-over.",
    ),
    ONLINE: ("online accuracy, top-1 %", 100, "Online accuracy of each epoch."),
    "effective_rank": (
        "effective rank",
        1,
        "Effective rank (RankMe) of the features: the number of directions in use; 1 means collapsed.",
    ),
    "data_wait_share": (
        "waiting for data, %",
        100,
        "Share of each epoch spent waiting for images; if it is large, the loader is too slow.",
    ),
}
_FROM_ZERO = ("effective_rank", "data_wait_share")  # a detail of them would look like a trend
_PHASES = {  # colours
    "convert": "#c7b299", "embed": "#7b5ea7", "combine": "#b79ad1", "targets": "#4b2e83",
    "startup": "#a9a9a9", "stage1": "#0072b2", "stage2": "#e69f00", "data_wait": "#cc3311",
    "checkpoint": "#555555", "other": "#d0d0d0",
}  # fmt: skip
_PHASE_NAMES = {"stage1": "stage 1", "stage2": "stage 2", "data_wait": "data wait"}
_MOST_CLASSES_IN_LEGEND = 10
_LEGEND_ABOVE: dict[str, Any] = {
    "loc": "lower center",
    "bbox_to_anchor": (0.5, 1.0),
    "frameon": False,
    "fontsize": 8,
}


@dataclass(frozen=True)
class Plots:
    """Figures of one data set's runs; each is None if there is nothing to show.

    `numbers`: the number of each run by name, as in the page's checkboxes. `levels`: horizontal lines.
    """

    dataset: str
    lines: list[Line]
    numbers: dict[str, int]
    levels: Sequence[Level] = ()

    def online_against_cost(self, cost: str) -> Figure | None:
        """Online accuracy over every run's training, and where lines with a prior overtake."""
        drawing, axes = begin_drawing(_COST_NAMES[cost], "online accuracy, top-1 %")
        for line in self.lines:
            for run in line.runs:
                costs, values = run.course(ONLINE, cost)
                self._draw_course(axes, costs, [100 * v for v in values], line, run)
        axes.set_xlim(left=0)
        self._draw_levels(axes, ONLINE)
        for line, point in _overtakings(self.lines, cost):
            axes.axvline(point, color=line.colour, linewidth=0.9, linestyle=":")
            axes.annotate(
                "ahead from here", (point, 0.02), xycoords=("data", "axes fraction"), fontsize=7,
                color=line.colour, rotation=90, ha="right", va="bottom",
            )  # fmt: skip
        caption = (
            "Accuracy of a linear layer trained beside the model, on augmented training images, against "
            f"{_COST_NAMES[cost]}. Diamonds: the hand-over. Dotted: ahead of training without a prior "
            "from here on."
        )
        name = f"{self.dataset}-online-accuracy-{cost}"
        return finish_drawing(drawing, axes, name, caption, self.lines)

    def final_against_cost(self, cost: str, measure: str) -> Figure | None:
        """A mark per evaluated run, lines through the mean of each budget, the best baseline dashed."""
        drawing, axes = begin_drawing(_COST_NAMES[cost], f"{title_of(measure)}, top-1 %")
        for line in self.lines:
            runs = [run for run in line.runs if measure in run.accuracies]
            points = {run.name: (_cost(run, cost), 100 * run.accuracies[measure]) for run in runs}
            shape = "s" if line.is_baseline else "o"
            for run in runs:
                self._tie(axes.plot(*points[run.name], shape, color=line.colour, alpha=0.6), run)
            means = sorted(
                tuple(statistics.fmean(points[r.name][i] for r in group) for i in (0, 1))
                for group in grouped(runs, lambda run: run.budget)
            )
            if means:
                axes.plot(*zip(*means, strict=True), color=line.colour)
            if means and line.is_baseline:
                best = max(mean for _, mean in means)
                draw_level(
                    axes, best, f"best of {line.label}: {best:.1f} %", line.colour, True, "--"
                )
        axes.set_xlim(left=0)
        self._draw_levels(axes, measure)
        caption = (
            f"Final accuracy by {title_of(measure)} against {_COST_NAMES[cost]}: a mark for each run, a line "
            "through the mean of each budget. Dashed: the best without a prior. Dotted: the prior itself, "
            "and always predicting the largest class."
        )
        name = f"{self.dataset}-{measure}-{cost}"
        return finish_drawing(drawing, axes, name, caption, self.lines)

    def over_epochs(self, measure: str) -> Figure | None:
        """A measure of `metrics.jsonl` over the epochs of every run."""
        from matplotlib.ticker import MaxNLocator

        title, factor, caption = COURSES[measure]
        drawing, axes = begin_drawing("epoch", title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for line in self.lines:
            for run in line.runs:
                found = [r for r in run.epochs if r.get(measure) is not None]
                epochs = [float(r["epoch"] + 1) for r in found]
                self._draw_course(axes, epochs, [factor * r[measure] for r in found], line, run)
        if measure in _FROM_ZERO:
            axes.set_ylim(bottom=0)
        self._draw_levels(axes, measure)
        name = f"{self.dataset}-{measure.replace('_', '-')}-epochs"
        return finish_drawing(drawing, axes, name, caption, self.lines)

    def ledger(self) -> Figure | None:
        """Seconds by phase, a bar for each run."""
        runs = [run for line in reversed(self.lines) for run in reversed(line.runs)]
        drawing, axes = begin_drawing("seconds", "", max(2.2, 1.2 + 0.24 * len(runs)))
        left = [0.0] * len(runs)
        for phase, colour in _PHASES.items():
            values = [run.seconds.get(phase, 0.0) for run in runs]
            if sum(values):
                name = _PHASE_NAMES.get(phase, phase)
                bars = axes.barh(range(len(runs)), values, left=left, color=colour, label=name)
                for run, bar in zip(runs, bars, strict=True):
                    self._tie([bar], run)
            left = [before + value for before, value in zip(left, values, strict=True)]
        axes.set_yticks(range(len(runs)), [run.name for run in runs], fontsize=7)
        axes.legend(ncols=4, **_LEGEND_ABOVE)
        caption = "Cost of every run; cached results count with their original cost."
        return finish_drawing(drawing, axes, f"{self.dataset}-cost", caption)

    def feature_map(self, found: "FeatureMap") -> Figure | None:
        """Two-dimensional features, coloured by class."""
        drawing, axes = begin_drawing("", "", 4.4)
        colours = _class_colours(len(found.class_names))
        for label, name in enumerate(found.class_names):
            points = found.points[found.labels == label]
            x, y = points.T
            axes.scatter(x, y, s=8, color=colours[label], label=name, alpha=0.75, linewidths=0)
        axes.set_xticks([])
        axes.set_yticks([])
        if 1 < len(found.class_names) <= _MOST_CLASSES_IN_LEGEND:
            axes.legend(ncols=5, markerscale=1.8, **_LEGEND_ABOVE)
        return finish_drawing(
            drawing, axes, f"{self.dataset}-features-{found.run}", _caption(found)
        )

    def _draw_course(
        self, axes: "Axes", x: Sequence[float], y: Sequence[float], line: Line, run: RunRecord
    ) -> None:
        if not x:
            return
        marker = "o" if len(x) == 1 else ""
        style: dict[str, Any] = {
            "color": line.colour,
            "linewidth": 1.3,
            "alpha": 0.85,
            "marker": marker,
        }
        self._tie(axes.plot(x, y, **style), run)
        handover = next((i for i, r in enumerate(run.epochs) if r.get("handover_step")), None)
        if handover is not None and handover < len(x):
            self._tie(axes.plot(x[handover], y[handover], "D", color=line.colour, ms=4), run)

    def _draw_levels(self, axes: "Axes", measure: str) -> None:
        known = [level for level in self.levels if measure in level.accuracies and axes.lines]
        known.sort(key=lambda level: level.accuracies[measure])
        for number, level in enumerate(known):  # neighbours have their labels at opposite ends
            height = 100 * level.accuracies[measure]
            colour = INK if level.line is None else level.line.colour
            draw_level(axes, height, f"{level.label}: {height:.1f} %", colour, number % 2 == 0)

    def _tie(self, artists: Iterable[Any], run: RunRecord) -> None:
        """Mark artists with their run, so that the page can find them."""
        for artist in artists:
            artist.set_gid(f"run-{self.numbers[run.name]}-")


def _overtakings(lines: Sequence[Line], cost: str) -> Iterator[tuple[Line, float]]:
    """Lines that overtake their baseline for good on every seed, and the mean cost at which they do."""
    baselines = [run for line in lines if line.is_baseline for run in line.runs]
    for line in lines:
        points: list[float | None] = []
        for seed in {run.seed for run in line.runs} if not line.is_baseline else ():
            experiment = line.runs[0].experiment
            theirs = [r for r in baselines if (r.seed, r.experiment) == (seed, experiment)]
            if theirs:
                mine = [run for run in line.runs if run.seed == seed]
                curves = [full_curve(runs, ONLINE, cost) for runs in (mine, theirs)]
                points.append(overtaking(*curves) if all(c[0] for c in curves) else None)
        reached = [point for point in points if point is not None]
        if reached and len(reached) == len(points) and max(reached) > 0:
            yield line, statistics.fmean(reached)


def _cost(run: RunRecord, cost: str) -> float:
    return run.total_seconds if cost == "seconds" else float(run.num_images_seen)


def _class_colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    few, many = colormaps["tab10"], colormaps["hsv"]
    return [few(i) if count <= _MOST_CLASSES_IN_LEGEND else many(i / count) for i in range(count)]


def _caption(found: "FeatureMap") -> str:
    how = "UMAP" if found.projection == "umap" else "first two principal components"
    shown, classes = len(found.points), len(found.class_names)
    of = "" if shown == found.num_images else f" of {found.num_images:,}"
    colours = f", coloured by {classes} classes" if classes > 1 else ""
    return f"{found.run}: features of {shown:,}{of} {found.split} images, {how}{colours}."
