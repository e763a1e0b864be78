"""What the training module (rela.training.two_stage) takes from its process and keeps in a checkpoint.

Covers: every rank has its share and its own random numbers; which parameters have no gradient; what is saved
is restored, in the stage where it was, with random numbers for one process only.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from two_stage_modules import ADAMW, BYOL_VIEWS, NUM_CLASSES, SIZE, beton, make_module, targets

from rela.data.views import stage1_views
from rela.methods.method import Progress
from rela.training.handover import FixedHandOver
from rela.training.two_stage import TwoStage, target_loss

__all__ = ["beton", "make_module", "targets"]  # fixtures


def trainer_of(rank: int = 0, world_size: int = 1, device: str = "cpu", completed: int = 0) -> Any:
    """What the module asks of Lightning's trainer."""
    progress = SimpleNamespace(current=SimpleNamespace(completed=completed))
    return SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        strategy=SimpleNamespace(root_device=torch.device(device)),
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
    )


@pytest.mark.parametrize(("rank", "device"), [(0, "cpu"), (1, "cuda")])
def test_every_rank_has_its_share_and_its_own_random_numbers(make_module, rank: int, device: str):
    module, loader = make_module(seed=5)
    module._trainer = trainer_of(rank, 2, device)
    module.setup("fit")
    found = torch.rand(3)
    torch.manual_seed(5 + rank)
    assert torch.equal(found, torch.rand(3))
    assert (loader.rank, loader.world_size, loader.pin_memory) == (rank, 2, device == "cuda")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"handover": FixedHandOver(3)}, (True, False)),
        ({"handover": FixedHandOver(3), "learn_head": True}, (True, True)),
        ({"handover": FixedHandOver(3), "learn_head": True, "anchor": 0.5}, (True, False)),
        ({}, (False, False)),
    ],
)
def test_parameters_without_gradients_are_told(make_module, options, expected):
    module, _ = make_module(**options)
    assert module.stage == (1 if options else 2)
    found = module.has_unused_parameters
    module.stage = 2
    assert (found, module.has_unused_parameters) == expected


def saved_by(module: Any, **options: Any) -> dict[str, Any]:
    module._trainer = trainer_of(**options)
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    return checkpoint


@pytest.mark.parametrize(("completed", "begins_at"), [(0, 0), (2, 2), (3, 0), (4, 1)])
def test_an_epoch_goes_on_with_the_batch_after_the_last_one(make_module, completed, begins_at):
    """Three batches in an epoch; those of a finished one are not skipped."""
    module, loader = make_module(handover=FixedHandOver(3))
    module.handover.update(0.5)
    checkpoint = saved_by(module, completed=completed)
    again, other = make_module(handover=FixedHandOver(3))
    again._trainer = trainer_of()
    again.on_load_checkpoint(checkpoint)
    assert again.handover.state_dict() == {"steps_done": 1}
    assert (again.stage, again.handover_step, again._steps_seen) == (1, None, 0)
    whole, rest = [b["index"] for b in loader], [b["index"] for b in other]
    assert len(whole) == 3 and len(rest) == 3 - begins_at
    assert all(torch.equal(a, b) for a, b in zip(whole[begins_at:], rest, strict=True))
    assert other.views == stage1_views(SIZE)


@pytest.mark.parametrize("anchor", [0.0, 0.5])
def test_after_the_hand_over_the_views_of_stage_two_are_loaded(make_module, anchor: float):
    module, _ = make_module(handover=FixedHandOver(7), anchor=anchor)
    module._steps_seen = 7
    module.begin_stage2()
    module._steps_seen = 9
    checkpoint = saved_by(module)
    again, loader = make_module(handover=FixedHandOver(7), anchor=anchor)
    again._trainer = trainer_of()
    again.on_load_checkpoint(checkpoint)
    assert (again.stage, again.handover_step, again.progress.step) == (2, 7, 2)
    assert loader.views == BYOL_VIEWS and (loader.targets is not None) == (anchor > 0)


def test_without_a_hand_over_the_loader_stays_as_it_is(make_module):
    checkpoint = saved_by(make_module()[0])
    again, loader = make_module()
    again._trainer, views = trainer_of(), loader.views
    again.on_load_checkpoint(checkpoint)
    assert again.stage == 2 and loader.views is views and checkpoint["rela"]["handover"] is None


@pytest.mark.parametrize("world_size", [1, 2])
def test_random_numbers_go_on_for_one_process(make_module, world_size: int):
    torch.manual_seed(8)
    checkpoint = saved_by(make_module()[0])
    state = checkpoint["rela"]["torch_rng_state"]
    again, _ = make_module()
    again._trainer = trainer_of(world_size=world_size)
    torch.manual_seed(9)
    own = torch.get_rng_state()
    again.on_load_checkpoint(checkpoint)
    assert torch.equal(torch.get_rng_state(), state if world_size == 1 else own)
    assert not torch.equal(state, own)
    if not torch.cuda.is_available():
        assert checkpoint["rela"]["cuda_rng_states"] == []


@pytest.mark.parametrize("num_classes", [0, NUM_CLASSES])
def test_a_linear_layer_watches_where_there_are_labels(make_module, num_classes: int):
    module, _ = make_module(num_classes=num_classes)
    assert (module.classifier is not None) == (num_classes > 0)
    assert module.head is None


def test_a_module_without_targets_has_the_defaults_of_the_algorithm_alone(make_module):
    whole, loader = make_module()
    module = TwoStage(whole.method, loader, ADAMW, 10)
    assert (module.stage, module.head, module.classifier, module.seed) == (2, None, None, 0)
    assert (module.anchor, module.progress) == (0, Progress(0, 10, 3))


@pytest.mark.parametrize(("batches", "accumulate", "steps"), [(3, 1, 3), (3, 3, 1), (3, 4, 1)])
def test_an_epoch_has_at_least_one_step(make_module, batches: int, accumulate: int, steps: int):
    module, loader = make_module()
    assert len(loader) == batches
    loader.accumulate = accumulate
    assert module.progress == Progress(0, 1000, steps)
    module.num_steps = module.handover_step = module._steps_seen = 5
    assert module.progress == Progress(0, 1, steps)


def test_every_prediction_has_a_target():
    one = torch.ones(2, 3)
    with pytest.raises(ValueError, match="zip"):
        target_loss([one, one], [one])


def test_what_is_watched_are_the_features_of_the_first_view(make_module):
    module, loader = make_module(handover=FixedHandOver(9))
    batch = next(iter(loader))
    found = module.training_step(batch, 0)["features"]
    one, other = (module.method.backbone(module.normalize(view)) for view in batch["views"])
    assert torch.equal(found, one) and not torch.equal(found, other)
    assert not found.requires_grad


def test_a_schedule_goes_on_to_the_steps_that_are_asked_for_now(make_module):
    module, _ = make_module()
    checkpoint = saved_by(module) | {"lr_schedulers": [{"max_epochs": 3}]}
    module.on_load_checkpoint(checkpoint)
    assert checkpoint["lr_schedulers"] == [{"max_epochs": module.num_steps}]


@pytest.mark.parametrize(
    ("saved", "here", "is_set"), [(1, 1, True), (2, 2, True), (1, 2, False), (0, 0, False)]
)
def test_random_numbers_of_gpus_go_on_where_there_are_as_many(
    make_module, monkeypatch: pytest.MonkeyPatch, saved: int, here: int, is_set: bool
):
    (module, _), (again, _) = make_module(), make_module()
    states, found = [torch.tensor([n], dtype=torch.uint8) for n in range(saved)], list[Any]()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: saved > 0)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: here)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", found.append)
    checkpoint = saved_by(module)
    again._trainer = trainer_of()
    again.on_load_checkpoint(checkpoint)
    assert found == ([states] if is_set else [])
