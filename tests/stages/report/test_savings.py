"""`rela report`: its arithmetic in closed forms, and its sentences (rela.stages.report)."""

import shlex
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from command_line import printed_commands
from nouns import run_of

from rela.cli import main
from rela.stages.report.lines import lines_of
from rela.stages.report.run_record import RunRecord
from rela.stages.report.savings import ONLINE, cost_of_reaching, overtaking, savings_of
from rela.stages.report.words import headline, saving_sentences
from rela.stages.train.resolve import check_settings, resolve_hyperparameters
from rela.training.settings import TrainSettings


def test_a_cost_is_interpolated_between_points():
    curve = ([1.0, 2.0, 4.0], [0.1, 0.3, 0.7])
    assert cost_of_reaching(curve, 0.5) == (3.0, False)
    assert cost_of_reaching(curve, 0.1) == (1.0, True)  # nothing measured before
    assert cost_of_reaching(curve, 0.8) is None
    falls = ([1.0, 2.0, 3.0], [0.2, 0.6, 0.4])
    assert cost_of_reaching(falls, 0.4) == (pytest.approx(1.5), False)


def test_overtaking_is_the_last_crossing():
    baseline = ([0.0, 10.0], [0.0, 1.0])
    # above, below, above: crosses y = x / 10 at 2.5 downwards, at 6 upwards
    curve = ([0.0, 5.0, 10.0], [0.2, 0.3, 1.4])
    found = overtaking(curve, baseline)
    assert found == pytest.approx(5 + 5 * 0.2 / 0.6)
    assert overtaking(([0.0, 10.0], [0.5, 1.5]), baseline) == 0.0
    assert overtaking(([0.0, 10.0], [0.5, 0.9]), baseline) is None
    assert overtaking(([20.0, 30.0], [0.5, 0.9]), baseline) is None  # no cost in common


def record(
    name: str,
    prior: str = "none",
    seed: int = 0,
    epochs: tuple[float, ...] = (0.1, 0.2),
    accuracies: dict[str, float] | None = None,
    seconds: float = 100.0,
    **changes: Any,
) -> RunRecord:
    """A run of 10 s before and 45 s in each of its epochs, unless `seconds` say otherwise."""
    given = {"model": "net", "image_size": 8, "batch_size": 10, "prior": prior}
    settings = TrainSettings(**{**given, **changes})
    embedded = 0 if prior == "none" else 50
    return RunRecord(
        run=run_of(name, settings, prior=None if prior == "none" else prior),
        experiment="one",
        line=f"{prior} {changes}",
        prior=prior,
        seed=seed,
        budget=(len(epochs), 1.0),
        epochs=[
            {"epoch": i, "step": 10 * (i + 1), "epoch_seconds": 30.0, "online_accuracy": value}
            for i, value in enumerate(epochs)
        ],
        seconds={"convert": 4.0, "startup": 6.0, "stage2": seconds - 10},
        total_seconds=seconds,
        accuracies=accuracies or {},
        num_images_seen=100 * len(epochs) + embedded,
        num_images_embedded=embedded,
    )


def test_a_curve_starts_after_preparation_and_ends_at_the_total_cost():
    run = record("a", "net", epochs=(0.1, 0.4, 0.5))
    assert run.course(ONLINE, "seconds") == ([40.0, 70.0, 100.0], [0.1, 0.4, 0.5])
    assert run.course(ONLINE, "images") == ([150.0, 250.0, 350.0], [0.1, 0.4, 0.5])


def test_a_saving_is_the_cost_of_the_baselines_accuracy_over_its_cost():
    runs = [
        record("b0", seed=0, epochs=(0.1, 0.4)),
        record("b1", seed=1, epochs=(0.1, 0.2)),
        record("r0", "net", 0, epochs=(0.2, 0.6)),  # 0.4 half-way from 55 s to 100 s
        record("r1", "net", 1, epochs=(0.1, 0.5)),  # 0.2 a quarter of that way
    ]
    (by_seconds,) = (s for s in savings_of(runs) if s.cost == "seconds")
    assert by_seconds.measure == ONLINE
    assert by_seconds.aims == {0: 0.4, 1: 0.2}
    assert by_seconds.shares == {0: pytest.approx(0.775), 1: pytest.approx(0.6625)}
    assert by_seconds.mean == pytest.approx((0.775 + 0.6625) / 2)
    assert by_seconds.std == pytest.approx(np.std([0.775, 0.6625], ddof=1))
    sentence = headline([by_seconds], lines_of(runs))
    assert sentence == (
        "net → byol: 55.0 % online accuracy, against 30.0 % without a prior (2 seeds). It reaches 30.0 % in "
        "72 ± 8 % of the seconds. Online accuracy is of augmented training images; `rela eval --all` "
        "measures others."
    )


def test_a_baseline_that_gets_worse_is_taken_at_its_best():
    runs = [
        record("b", epochs=(0.1, 0.5, 0.3, 0.3)),  # 0.5 after 10 + 2 * 22.5 s of 100 s
        record("r", "net", epochs=(0.4, 0.6)),  # 0.5 half-way from 55 s to 100 s
    ]
    (saving,) = [s for s in savings_of(runs) if s.cost == "seconds"]
    assert saving.aims == {0: 0.5}
    assert saving.shares == {0: pytest.approx(77.5 / 55)}
    assert saving.bests == {0: 0.6}
    words = headline([saving], lines_of(runs))
    assert "reaches 50.0 % in 1.4 times the seconds" in words


def test_evaluated_runs_of_several_budgets_are_compared_by_their_final_accuracy():
    runs = [
        record("b", accuracies={"knn20": 0.5}, seconds=100, epochs=(0.1,) * 4),
        record("small", "net", accuracies={"knn20": 0.3}, seconds=20, epochs=(0.1,)),
        record("large", "net", accuracies={"knn20": 0.7}, seconds=60, epochs=(0.1,) * 2),
    ]
    found = {s.cost: s for s in savings_of(runs) if s.measure == "knn20"}
    assert found["seconds"].shares == {0: pytest.approx(0.4)}
    assert found["images"].shares == {0: pytest.approx((150 + 250) / 2 / 400)}
    words = saving_sentences(savings_of(runs), lines_of(runs))[0]
    assert words == (
        "net → byol: 70.0 % 20-NN accuracy after 200 images of training, against 50.0 % without a prior "
        "after 400 (one seed). It reaches 50.0 % in 40 % of the seconds and 50 % of the images seen."
    )


def test_missing_comparisons_are_reported():
    never = [record("b", epochs=(0.1, 0.9)), record("r", "net", epochs=(0.2, 0.3))]
    (sentence,) = saving_sentences(savings_of(never), lines_of(never))
    assert "It never reaches 90.0 %." in sentence
    assert "No training with a prior reached" in headline(savings_of(never), lines_of(never))
    cheapest = [record("b", epochs=(0.1, 0.2)), record("r", "net", epochs=(0.3, 0.4))]
    assert "in at most 55 % of the seconds" in headline(savings_of(cheapest), lines_of(cheapest))
    nothing = headline([], lines_of([record("b")]), "rela embed x --prior timm:a --layer b")
    assert nothing.startswith(
        "No run uses a prior yet; `rela embed x --prior timm:a --layer b` and `rela"
    )
    assert "--prior timm:a" in nothing.rpartition(" and ")[2]


def test_accuracies_at_chance_are_not_a_saving():
    baseline, fast = record("b", epochs=(0.1, 0.11)), record("r", "net", epochs=(0.12, 0.1))
    limits = {"train": 0.12, "val": 0.2}
    runs = [replace(run, by_chance=limits) for run in (baseline, fast)]
    (said,) = saving_sentences(savings_of(runs), lines_of(runs))
    assert said == headline(savings_of(runs), lines_of(runs))
    assert said == (
        "Without a prior, the best online accuracy (11.0 %) is no better than chance, so there is nothing "
        "to reach; train for more --epochs."
    )
    better = [replace(run, accuracies={"knn20": 0.3}) for run in runs]
    assert "20-NN accuracy" in headline(savings_of(better), lines_of(better))
    worse = [replace(run, accuracies={"knn20": 0.2}) for run in runs]
    assert "no better than chance" in headline(savings_of(worse), lines_of(worse))


def test_line_labels_name_what_differs():
    half = record("r", "net", handover=0.5, crops=None)
    crops = record("s", "net", handover=None, crops=8)
    lines = lines_of([record("b", handover=None), half, crops])
    assert [line.label for line in lines] == [
        "byol", "net → byol, hand-over 0.5", "net → byol, 8 crops, adaptive hand-over",
    ]  # fmt: skip
    assert len({line.colour for line in lines}) == 3
    # a baseline has no hand-over, so that a single way with a prior has nothing to tell it from
    alone = lines_of([record("b", handover=None, anchor=0.0), half])
    assert [line.label for line in alone] == ["byol", "net → byol"]


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "simclr", "epochs": 7, "batch_size": 64, "data_ratio": 0.5, "seed": 3},
        {"lr": 0.5, "schedule": "constant", "hyperparameters": "paper", "handover": 0.3},
        {"optimizer": "sgd", "lr": 0.003, "anchor": 9.0, "target_width": 5, "head": "learned"},
        {"method": "none", "epochs": 7},
        {"prior": "none", "method": "dino", "min_scale": 0.5, "precision": "bf16-mixed"},
    ],
    ids=str,
)
def test_the_run_to_compare_with_has_the_same_settings(changed: dict[str, Any]):
    """The command of the headline, parsed and resolved as `rela train` does it."""

    def resolved(settings: TrainSettings) -> dict[str, Any]:
        return vars(resolve_hyperparameters(check_settings(settings), labelled=True))

    given = {"model": "resnet18", "image_size": 48, "prior": "net", **changed}
    own = resolved(TrainSettings(**given))
    before = record("r", given["prior"])
    before = replace(before, run=run_of("r", TrainSettings(**own)))
    [line] = printed_commands(headline([], lines_of([before])))[-1:]
    name, *words = shlex.split(line)[1:]
    assert "optimizer" in changed or "--weight-decay" not in words  # the algorithm's own
    typed = main.commands[name].make_context(name, words).params
    assert (name, typed["dataset"]) == ("train", "pictures")
    assert (typed["prior"] == "none") == (given["prior"] != "none")
    found = resolved(TrainSettings(**{f.name: typed[f.name] for f in fields(TrainSettings)}))
    free = {"prior", "crops", "target_width", "handover", "head", "anchor"}
    free |= {"method"} if own["method"] == "none" else set()
    assert {n for n in own if found[n] != own[n]} <= free
