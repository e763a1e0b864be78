"""What goes wrong in a training is said once, in words (rela.training.diagnosis).

- every rule on records made by hand: when it speaks, what it advises, and what keeps it silent;
- runs of a few steps that provoke them: black images, a short run, targets that do not vary, a slow loader,
  random labels; and healthy ones, in which nothing is said.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_runs
import torch
from betons import in_memory
from small_runs import NUM_IMAGES, beton, make_targets, on_the_cpu, train

from rela.data.beton.reader import Beton
from rela.data.loader import ViewLoader
from rela.pipeline.spent import Spent
from rela.representations.targets import Targets
from rela.training import diagnosis
from rela.training.diagnosis import RULES, Diagnosis, Facts, diverged, target_std
from rela.training.handover import AdaptiveHandOver, FixedHandOver
from rela.training.run import run_training

__all__ = ["beton", "on_the_cpu"]  # fixtures
STEPS = 100
# whose features vary at once: norms of residual branches do not begin at 0
PLAN = replace(small_runs.PLAN, model="shufflenet_v2_x0_5")
STILL = replace(PLAN, lr=1e-12, handover=1.0)
FACTS = Facts(
    method="byol", num_steps=10 * STEPS, images_per_epoch=10_000, lr=0.3, image_size=32,
    is_adaptive=True, num_cores=4, largest_class=0.1, longer_side_pixels=500, has_jpegs=True,
    target_std=1.0,
)  # fmt: skip


def records(number: int, **values: Any) -> list[dict[str, Any]]:
    """Of healthy epochs of stage 1, but for `values`."""
    healthy = {
        "stage": 1, "loss": 0.5, "earliest_handover_step": 500, "epoch_seconds": 60.0,
        "data_wait_share": 0.01, "online_accuracy": 0.5, "effective_rank": 30.0, "feature_std": 0.4,
    }  # fmt: skip
    return [{"epoch": i, "step": (i + 1) * STEPS, **healthy, **values} for i in range(number)]


def said(found: list[dict[str, Any]], facts: Facts = FACTS) -> list[str]:
    """What is said about these epochs, one after the other."""
    sentences: list[str] = []
    watching = Diagnosis(facts, sentences.append)
    watching.begin()
    for record in found:
        watching.add(record)
    return sentences


ILLS: dict[str, tuple[dict[str, Any], int, str]] = {
    "collapsed in stage 1": ({"feature_std": 0.0}, 2, "lower --lr (it is 0.3), or check that the"),
    "collapsed in stage 2": (
        {"effective_rank": 1.0, "stage": 2}, 2, "--batch-size, or choose another --method"
    ),
    "hand-over": ({"earliest_handover_step": 1001}, 1, "at step 1001, later if it falls on, and this run"),
    "starved": ({"data_wait_share": 0.35}, 3, "35 % of epochs 1 to 3 with 4 CPU cores; give the job more"),
    "not learning": ({"loss": 0.995}, 2, "(0.995, epochs 1 to 2; 1 is chance): change --lr (it is 0.3)"),
    "at chance": ({"online_accuracy": 0.1}, 5, "at chance (10.0 %, epochs 3 to 5; the largest class has"),
}  # fmt: skip


@pytest.mark.parametrize("name", ILLS)
def test_what_is_wrong_is_said_once_and_as_soon_as_it_is_sure(name: str) -> None:
    values, epochs, words = ILLS[name]
    assert said(records(epochs - 1, **values)) == []
    (sentence,) = said(records(9, **values))
    assert said(records(epochs, **values)) == [sentence]
    assert sentence.startswith("warning: ") and words in sentence and "\n" not in sentence


def test_nothing_is_said_of_a_healthy_run() -> None:
    assert said(records(10)) == []
    # nor of the first epochs of one: at chance, its loss near 1, in a cold cache
    start = {"loss": 0.992, "online_accuracy": 0.1, "data_wait_share": 0.9, "epoch_seconds": 9.0}
    assert said([*records(1, **start), *records(9)[1:]]) == []


def test_a_hand_over_that_did_not_come_is_said_at_the_end() -> None:
    late = [*records(9), *records(10, earliest_handover_step=1001)[9:]]
    (sentence,) = said(late)
    assert "no hand-over within 1000 steps: byol never ran" in sentence


@pytest.mark.parametrize(
    ("losses", "facts", "warned"),
    [
        ((0.8, 0.7), FACTS, True),
        ((0.8, 0.7), replace(FACTS, is_adaptive=False), False),
        ((0.701, 0.7), FACTS, False),
        ((0.7,), FACTS, False),  # one epoch has no slope
    ],
)
def test_an_adaptive_hand_over_while_the_loss_falls_is_warned_about(
    losses: tuple[float, ...], facts: Facts, warned: bool
) -> None:
    stage1 = [{**record, "loss": loss} for record, loss in zip(records(9), losses, strict=False)]
    after = {"stage": 2, "loss": -0.5, "handover_step": 250, "earliest_handover_step": None}
    sentences = said([*stage1, *records(9, **after)[len(losses) :]], facts)
    assert len(sentences) == warned
    assert all(
        "at step 250 of 1000 while its loss still fell (0.800, then 0.700" in s for s in sentences
    )


@pytest.mark.parametrize(
    ("values", "facts"),
    [
        ({"online_accuracy": 0.52}, replace(FACTS, largest_class=0.5, images_per_epoch=400)),
        ({"online_accuracy": 0.97}, replace(FACTS, largest_class=0.97, images_per_epoch=100)),
        ({"online_accuracy": 0.53}, replace(FACTS, largest_class=0.5)),
        ({"loss": 0.999}, replace(FACTS, warmup_epochs=20)),
        ({"loss": 0.999, "stage": 2}, FACTS),
        ({"data_wait_share": 0.5, "epoch_seconds": 0.5}, FACTS),
        ({"data_wait_share": 0.19}, FACTS),
        ({"earliest_handover_step": 5000}, replace(FACTS, is_adaptive=False)),
        ({"earliest_handover_step": None, "stage": 2}, FACTS),
    ],
    ids=["chance of few images", "one large class", "better than chance", "warm-up", "a loss of stage 2",
         "tiny epochs", "waits a little", "chosen hand-over", "stage 2"],
)  # fmt: skip
def test_what_has_a_harmless_reason_is_not_said(values: dict[str, Any], facts: Facts) -> None:
    sentences = said(records(10, **values), facts)
    expected = 1 if "chance" in " ".join(sentences) else 0
    assert len(sentences) == expected
    assert expected == (
        values == {"online_accuracy": 0.52}
    )  # nobody can tell 52 % of 400 from a half


def test_short_runs_are_not_judged_by_chance() -> None:
    few = [{**record, "step": 4 * (record["epoch"] + 1)} for record in records(10, loss=0.999)]
    assert said([{**record, "online_accuracy": 0.1} for record in few]) == []


def test_records_without_the_new_keys_are_read() -> None:
    old = [
        {k: v for k, v in record.items() if k not in ("feature_std", "effective_rank")}
        for record in records(6)
    ]
    del old[-1]["online_accuracy"], old[-1]["earliest_handover_step"]
    assert said(old) == []


def test_a_run_that_goes_on_looks_at_what_was_before() -> None:
    ill = records(9, loss=0.999)
    sentences: list[str] = []
    Diagnosis(FACTS, sentences.append, ill[:5]).add(ill[5])
    assert len(sentences) == 1 and "epochs 1 to 6" in sentences[0]


def test_the_loader_is_given_what_fits_the_images() -> None:
    ill = records(3, data_wait_share=0.5)
    (sentence,) = said(ill)
    assert "--max-side 64" in sentence and "--write-mode raw" in sentence
    (sentence,) = said(ill, replace(FACTS, longer_side_pixels=64, has_jpegs=False, num_cores=1))
    assert sentence.endswith("with 1 CPU core; give the job more CPU cores")
    # one long epoch is enough
    assert len(said(records(1, data_wait_share=0.5, epoch_seconds=4000.0))) == 1


@pytest.mark.parametrize(
    ("precision", "advice"),
    [
        ("32-true", "start again with a lower --lr (it is 0.3)"),
        (
            "16-mixed",
            "start again with a lower --lr (it is 0.3), or with --precision 32-true (it is 16-mixed)",
        ),
    ],
)
def test_a_loss_that_is_no_number_comes_with_advice_that_changes_something(
    precision: str, advice: str
) -> None:
    views = [torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)] * 2
    message = diverged(2, float("nan"), 7, 0.3, precision, views)
    assert message == f"the stage-2 loss became nan at step 7; {advice}"


def test_a_loss_that_is_no_number_is_not_the_rate_s_fault_if_all_images_look_alike() -> None:
    views = [torch.full((4, 3, 2, 2), 7, dtype=torch.uint8)] * 2
    message = diverged(1, float("nan"), 2, 0.3, "16-mixed", views)
    assert message.endswith("look alike; check that the images differ") and "--lr" not in message


# The hand-over's rule


@pytest.mark.parametrize("loss", [1.0, 0.8, 0.1])
def test_the_steps_left_are_those_that_the_rule_then_takes(loss: float) -> None:
    rule = AdaptiveHandOver()
    for _ in range(40):
        rule.update(1.0)
    state, expected, steps = rule.state_dict(), rule.steps_left(loss), 1
    assert rule.state_dict() == state
    while not rule.update(loss):
        steps += 1
    assert steps == expected
    falling = AdaptiveHandOver()
    falling.load_state_dict(state)
    assert not any(falling.update(loss - 1e-5 * i) for i in range(expected))


def test_a_fixed_hand_over_knows_its_steps() -> None:
    rule = FixedHandOver(5)
    rule.update(1.0)
    assert rule.steps_left(0.3) == 4


# Real runs


def warnings_of(plan: Any, directory: Path, beton: Beton, **options: Any) -> list[str]:
    found: list[str] = []
    train(plan, directory, beton, found.append, **options)
    return [line for line in found if line.startswith("warning: ")]


def test_a_healthy_run_says_nothing(tmp_path: Path, beton: Beton) -> None:
    assert warnings_of(replace(PLAN, handover=0.5), tmp_path, beton) == []


def test_a_run_too_short_for_the_rule_says_so_before_its_first_step_and_not_again(
    tmp_path: Path, beton: Beton
) -> None:
    found: list[str] = []
    train(PLAN, tmp_path, beton, found.append)
    assert found[0].startswith(
        "warning: the adaptive hand-over needs 528 steps or more, and this run has 9"
    )
    assert sum("never" in line for line in found) == 1


def test_images_that_all_look_alike_collapse_the_features(tmp_path: Path) -> None:
    """In a network without batch norm, whose gradients would grow without bound here."""
    black = in_memory([np.zeros((16, 16, 3), np.uint8)] * NUM_IMAGES, num_classes=3)
    plan = replace(STILL, model="timm:test_vit", image_size=32)
    (sentence,) = warnings_of(plan, tmp_path / "run", black)
    assert "the features have collapsed" in sentence and "check that the images differ" in sentence


def test_targets_that_do_not_vary_are_named_before_the_first_step(
    tmp_path: Path, beton: Beton
) -> None:
    constant = Targets(torch.full((NUM_IMAGES, 6), 0.3).half())
    found: list[str] = []
    run_training(
        replace(PLAN, handover=0.5), tmp_path, beton, constant, 3, "a-run", Spent.now(),
        found.append,
    )  # fmt: skip
    assert found[0].startswith(
        "warning: the targets hardly vary (standard deviation 0, expected 1)"
    )


def test_the_spread_of_targets_is_that_of_numpy() -> None:
    values = make_targets().values
    assert target_std(values) == pytest.approx(values.numpy().astype(np.float64).std(axis=0).mean())


def test_a_loader_that_does_not_keep_up_is_named(
    tmp_path: Path, beton: Beton, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ViewLoader._result

    def slow(self: ViewLoader, *arguments: Any) -> Any:
        time.sleep(0.5)
        return original(self, *arguments)

    monkeypatch.setattr(ViewLoader, "_result", slow)
    monkeypatch.setattr(diagnosis, "_SHORT_SECONDS", 1.0)
    (sentence,) = warnings_of(replace(PLAN, handover=0.5), tmp_path, beton)
    assert "waiting for images took" in sentence and sentence.endswith("more CPU cores")


def test_a_model_that_does_not_learn_is_told_of(
    tmp_path: Path, beton: Beton, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of 9 steps at a rate of nothing; the limits are those of long runs, made short."""
    for name, few in (("_FEWEST_STAGE1_STEPS", 6), ("_FEWEST_STEPS", 9), ("_FEWEST_EPOCHS", 3)):
        monkeypatch.setattr(diagnosis, name, few)
    monkeypatch.setattr(diagnosis, "_NOTHING_LEARNED", 0.6)  # few images and 6 components: 1 ± 0.2
    plan = STILL
    found = warnings_of(plan, tmp_path, beton)
    assert ["stage-1 loss does not fall" in line for line in found] == [True, False]
    assert ["accuracy stays at chance" in line for line in found] == [False, True]


def test_every_rule_has_an_ill_that_provokes_it() -> None:
    assert {"hand-over", "early hand-over", "collapse", "loading", "stage 1", "accuracy"} == set(
        RULES
    )
