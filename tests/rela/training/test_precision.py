"""The number format where it is left open (rela.training.precision).

"auto" depends on the kind of device only; "fastest" measures on a CPU that has bfloat16, and needs a lead.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_runs import PLAN

from rela.training import precision
from rela.training.precision import choose_precision, default_precision, speedup_of_bf16


def chosen(name: str, say: Any = lambda line: None) -> str:
    return choose_precision(replace(PLAN, precision=name), torch.channels_last, say)


@pytest.mark.parametrize(
    ("name", "has_gpu", "has_bf16", "gain", "expected"),
    [
        ("auto", False, True, 9.0, "32-true"),
        ("auto", True, True, 9.0, "16-mixed"),
        ("fastest", True, True, 9.0, "16-mixed"),
        ("fastest", False, False, 9.0, "32-true"),
        ("fastest", False, True, 1.2, "bf16-mixed"),
        ("fastest", False, True, 1.19, "32-true"),
        ("bf16-mixed", False, False, 0.1, "bf16-mixed"),
    ],
)
def test_only_fastest_measures_and_only_where_there_is_bf16(
    monkeypatch: pytest.MonkeyPatch, name: str, has_gpu: bool, has_bf16: bool, gain: float,
    expected: str,
):  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(precision, "has_bf16", lambda: has_bf16)
    monkeypatch.setattr(precision, "speedup_of_bf16", lambda *_: gain)
    said: list[str] = []
    assert chosen(name, said.append) == expected
    if name == "fastest" and not has_gpu:
        assert said[0].startswith(f"{expected}: ")
    else:
        assert said == [] and default_precision(name) == expected


def test_a_measurement_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    assert speedup_of_bf16(PLAN, torch.channels_last) > 0
    assert torch.equal(before, torch.get_rng_state())
