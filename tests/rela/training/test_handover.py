"""The hand-over rule (rela.training.handover) against its published formula.

- the step at which it fires: in closed form for a constant loss, by plain re-computation for others;
- its state, through JSON and back in the middle, goes on exactly;
- a fixed number of steps; losses that are not numbers.
"""

import json
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from rela.training.handover import AdaptiveHandOver, FixedHandOver

MOST_STEPS = 20_000


def firing_step(rule: AdaptiveHandOver | FixedHandOver, losses: Iterator[float]) -> int:
    return next(step for step, loss in enumerate(losses, 1) if rule.update(loss))


@pytest.mark.parametrize("loss", [0.0, 0.2, 0.5, 0.9, 1.0, 1.3])
def test_for_a_constant_loss_it_fires_where_the_recurrence_is_solved(loss: float):
    """fast(t) = ℓ + (1 − ℓ) 0.999^t; slow − fast = 0.11 (1 − ℓ) 0.999^t + C 0.99^t."""
    t = np.arange(MOST_STEPS)
    constant = 2 - loss - 1.11 * (1 - loss)
    gap = 0.11 * (1 - loss) * 0.999**t + constant * 0.99**t
    expected = int(np.flatnonzero(np.exp(-np.maximum(gap, 0)) >= 0.995)[0]) + 1
    assert firing_step(AdaptiveHandOver(), iter([loss] * MOST_STEPS)) == expected


CURVES: dict[str, Callable[[int], float]] = {
    "falling fast": lambda step: 0.05 + 0.95 * math.exp(-step / 200),
    "falling slowly": lambda step: 0.3 + 0.7 * math.exp(-step / 3000),
    "power law": lambda step: (1 + step) ** -0.3,
    "noisy": lambda step: 0.4 + 0.3 * math.sin(12.9898 * step),
    "rising": lambda step: min(2.0, 0.2 + step / 1000),
    "almost flat": lambda step: 0.9 + 0.1 * math.exp(-step / 2000),
    "slowly to a middle floor": lambda step: 0.5 + 0.5 * math.exp(-step / 2000),
}


@pytest.mark.parametrize("curve", CURVES)
def test_rho_and_the_firing_step_follow_the_formula(curve: str):
    slow, fast = 2.0, 1.0
    rule = AdaptiveHandOver()
    for step in range(MOST_STEPS):
        loss = CURVES[curve](step)
        rho = math.exp(-max(slow - fast, 0))
        fast = 0.999 * fast + 0.001 * loss
        slow = 0.99 * slow + 0.01 * fast
        assert rule.update(loss) == (rho >= 0.995), step
        assert rule.rho == pytest.approx(rho, rel=1e-12)
        if rho >= 0.995:
            break
    assert rho >= 0.995
    assert 550 <= step < 5_850  # what to expect of plausible curves


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("pause", [1, 300])
def test_it_goes_on_from_a_saved_state_as_if_nothing_had_happened(curve: str, pause: int):
    losses = [CURVES[curve](step) for step in range(MOST_STEPS)]
    expected = firing_step(AdaptiveHandOver(), iter(losses))
    before, after = AdaptiveHandOver(), AdaptiveHandOver()
    assert not any(before.update(loss) for loss in losses[:pause])
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert after.rho == before.rho
    assert pause + firing_step(after, iter(losses[pause:])) == expected


@pytest.mark.parametrize("num_steps", [1, 7, 100])
def test_the_fixed_rule_fires_after_its_number_of_steps(num_steps: int):
    assert firing_step(FixedHandOver(num_steps), iter([1.0] * 200)) == num_steps


def test_the_fixed_rule_counts_on_from_a_saved_state_and_tells_its_progress():
    before, after = FixedHandOver(10), FixedHandOver(10)
    assert not any(before.update(0.5) for _ in range(4))
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert after.rho == pytest.approx(0.4)
    assert firing_step(after, iter([0.5] * 10)) == 6
    assert after.rho == 1


@pytest.mark.parametrize("rule", [AdaptiveHandOver(), FixedHandOver(5)])
@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_a_number_is_refused_and_changes_nothing(rule, loss: float):
    before = rule.state_dict()
    with pytest.raises(ValueError, match="loss"):
        rule.update(loss)
    assert rule.state_dict() == before


@pytest.mark.parametrize("loss", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("done", [0, 1, 300])
def test_the_steps_that_are_left_are_those_until_it_fires(loss: float, done: int):
    rule = AdaptiveHandOver()
    assert rule.rho == 0
    assert not any(rule.update(0.7) for _ in range(done))
    before, expected = rule.state_dict(), rule.steps_left(loss)
    assert rule.state_dict() == before  # only asked
    assert firing_step(rule, iter([loss] * MOST_STEPS)) == expected


def test_a_fixed_rule_that_is_over_has_no_steps_left_and_full_progress():
    rule = FixedHandOver(3)
    for left in (3, 2, 1, 0, 0):
        assert rule.steps_left(0.5) == left
        assert rule.rho == (3 - left) / 3
        rule.update(0.5)


def test_a_fixed_rule_of_no_steps_has_a_progress():
    rule = FixedHandOver(0)
    assert (rule.rho, rule.steps_left(0.5)) == (0, 0)
    assert rule.update(0.5) and rule.rho == 1
