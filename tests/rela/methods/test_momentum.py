"""Momentum networks against float64 arithmetic, and against lightly's."""

import copy

import torch
from lightly.models.utils import update_momentum
from torch import nn

from rela.methods.method import ema_update, momentum_copy


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3, bias=False))


def test_a_copy_has_the_weights_and_no_gradients() -> None:
    leader = network(0)
    follower = momentum_copy(leader)
    for mine, theirs in zip(follower.parameters(), leader.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert not mine.requires_grad
        assert theirs.requires_grad
    with torch.no_grad():
        leader[0].weight.zero_()
    assert follower[0].weight.abs().sum() > 0


def test_following_is_a_moving_average_that_leaves_buffers_alone() -> None:
    leader, follower = network(0), momentum_copy(network(1))
    leader[1].running_mean.fill_(3.0)
    expected = [
        0.9 * mine.double() + 0.1 * theirs.detach().double()
        for mine, theirs in zip(follower.parameters(), leader.parameters(), strict=True)
    ]
    ema_update(leader, follower, 0.9)
    for mine, wanted in zip(follower.parameters(), expected, strict=True):
        torch.testing.assert_close(mine.double(), wanted, atol=1e-6, rtol=1e-6)
        assert mine.grad_fn is None
    assert torch.equal(follower[1].running_mean, torch.zeros(7))


def test_many_steps_agree_with_lightly() -> None:
    leader, ours = network(0), momentum_copy(network(1))
    theirs = copy.deepcopy(ours)
    for step in range(50):
        with torch.no_grad():
            for parameter in leader.parameters():
                parameter.add_(0.01 * (step % 3 - 1))
        ema_update(leader, ours, 0.99)
        update_momentum(leader, theirs, 0.99)
    for mine, lightlys in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, lightlys, atol=1e-6, rtol=1e-5)
