"""What is not chosen follows the algorithm (rela.stages.train.resolve).

- every algorithm has this project's hyperparameters by default: half of the steps in stage 1, and the
  target loss kept in stage 2; without a prior the same optimizer; a chosen value wins;
- publications' are for 100 epochs and the size of the images;
- the publications' rates are those of 256 images, scaled to the batch; a chosen rate is taken as it is;
- warm-ups are shortened in short trainings; every choice wins over the default;
- LARS in a training of few steps is warned about, once;
- what an algorithm has no use for is refused in one line; resolving twice changes nothing.
"""

import pytest

from rela.errors import ChoiceError
from rela.methods import METHODS
from rela.stages.train.resolve import check_settings, resolve_hyperparameters, say_if_too_short
from rela.training.settings import ResolvedSettings, TrainSettings

PUBLISHED = {  # optimizer, rate for 256 images, weight decay, warm-up epochs; for images of 32 pixels
    "byol": ("lars", 1.0, 1e-5, 10),
    "dino": ("adamw", 5e-4, 0.04, 10),
    "simclr": ("lars", 0.4, 1e-4, 10),
    "mocov2": ("sgd", 0.03, 5e-4, 0),
    "mocov3": ("lars", 0.3, 1e-6, 10),
    "simsiam": ("sgd", 0.03, 5e-4, 0),
    "barlowtwins": ("lars", 0.3, 1e-4, 10),
    "vicreg": ("lars", 0.3, 1e-4, 10),
    "swav": ("lars", 0.6, 1e-6, 10),
    "supervised": ("sgd", 0.1, 1e-4, 5),
}
LARGE = {  # for 224 pixels
    "byol": ("lars", 0.45, 1e-6, 10),
    "dino": ("adamw", 5e-4, 0.04, 10),
    "simclr": ("lars", 1.2, 1e-6, 10),
    "mocov2": ("sgd", 0.03, 1e-4, 0),
    "mocov3": ("lars", 0.6, 1e-6, 10),
    "simsiam": ("sgd", 0.05, 1e-4, 0),
    "barlowtwins": ("lars", 0.2, 1.5e-6, 10),
    "vicreg": ("lars", pytest.approx(0.566, abs=1e-3), 1e-6, 10),
    "swav": ("lars", 0.6, 1e-6, 0),
    "supervised": ("sgd", 0.1, 1e-4, 5),
}
REFERENCE = ("adamw", 1e-3, 0.01, 0)
RELA = ("adamw", 3e-3, 0.01, 0)


def resolved(**chosen: object) -> ResolvedSettings:
    data = {"batch_size": 256, "model": "resnet18", "image_size": 32}
    settings = TrainSettings(**{**data, **chosen})  # type: ignore[arg-type]
    return ResolvedSettings(**vars(resolve_hyperparameters(settings, labelled=True)))


def optimizer_fields(settings: TrainSettings) -> tuple[object, ...]:
    return settings.optimizer, settings.lr, settings.weight_decay, settings.warmup_epochs


def test_every_method_is_covered():
    assert set(METHODS) == {*PUBLISHED, "none"}


@pytest.mark.parametrize("method", PUBLISHED)
def test_the_paper_has_the_published_numbers(method: str):
    settings = resolved(method=method, hyperparameters="paper")
    assert optimizer_fields(settings) == PUBLISHED[method]
    large = resolved(method=method, hyperparameters="paper", image_size=224)
    assert optimizer_fields(large) == LARGE[method]
    assert settings.schedule == "cosine"
    assert settings.optimizer_settings.clip_norm == (3.0 if method == "dino" else None)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_this_projects_hyperparameters_by_default(method: str):
    settings = resolved(method=method)
    larger = resolved(method=method, batch_size=512)
    assert resolve_hyperparameters(larger, labelled=True) == larger  # once is enough
    assert settings.hyperparameters == "rela"
    assert optimizer_fields(settings) == RELA
    assert settings.schedule == "cosine"


@pytest.mark.parametrize(
    ("chosen", "handover", "anchor"),
    [
        ({}, 0.5, 3.0),
        ({"handover": 0.25, "anchor": 0.0}, 0.25, 0.0),
        ({"method": "none"}, 1.0, 0.0),
        ({"prior": "none"}, None, 0.0),
        ({"hyperparameters": "reference"}, None, 0.0),
        ({"method": "vicreg"}, 0.5, 100.0),
        ({"method": "simclr", "anchor": 3.0}, 0.5, 3.0),
        ({"method": "vicreg", "hyperparameters": "reference"}, None, 0.0),
        ({"hyperparameters": "paper", "anchor": 1.0}, None, 1.0),
    ],
)
def test_stage_2_keeps_the_target_loss_unless_the_paper_is_asked_for(
    chosen: dict[str, object], handover: float | None, anchor: float
):
    checked = check_settings(TrainSettings(**{"image_size": 32, **chosen}))  # type: ignore[arg-type]
    settings = resolve_hyperparameters(checked, labelled=True)
    assert (settings.handover, settings.anchor) == (handover, anchor)


@pytest.mark.parametrize("method", METHODS)
def test_the_reference_can_be_asked_for_everywhere(method: str):
    settings = resolved(method=method, hyperparameters="reference", batch_size=512)
    assert optimizer_fields(settings) == REFERENCE  # at any batch size
    optimizer = settings.optimizer_settings
    assert optimizer.decay_all and optimizer.clip_norm is None


@pytest.mark.parametrize(("batch_size", "expected"), [(64, 0.075), (256, 0.3), (4096, 4.8)])
def test_the_papers_rate_grows_with_the_batch(batch_size: int, expected: float):
    settings = resolved(
        method="simclr", hyperparameters="paper", batch_size=batch_size, epochs=800, image_size=224
    )
    assert settings.lr == pytest.approx(expected)
    optimizer = settings.optimizer_settings
    assert optimizer.lr == pytest.approx(expected) and optimizer.lr_batch_size is None


@pytest.mark.parametrize(("epochs", "expected"), [(1, 1), (20, 2), (95, 10), (800, 10)])
def test_a_warm_up_takes_at_most_a_tenth_of_the_training(epochs: int, expected: int):
    assert resolved(method="byol", hyperparameters="paper", epochs=epochs).warmup_epochs == expected


def test_given_values_override_defaults():
    settings = resolved(
        method="simclr", optimizer="sgd", lr=0.7, weight_decay=0.0, schedule="constant",
        warmup_epochs=3, batch_size=1024,
    )  # fmt: skip
    assert optimizer_fields(settings) == ("sgd", 0.7, 0.0, 3)
    optimizer = settings.optimizer_settings
    assert (optimizer.optimizer, optimizer.lr, optimizer.schedule) == ("sgd", 0.7, "constant")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"method": "simclr", "ema": "cosine"}, "--method simclr does not use --ema"),
        ({"method": "byol", "local_crops": 2}, "--method byol does not use --local-crops"),
        ({"method": "simclr", "optimizer": "lars"}, "--optimizer lars requires --lr"),
    ],
)
def test_unused_options_are_refused(chosen: dict[str, object], message: str):
    with pytest.raises(ChoiceError, match=message) as caught:
        resolved(**chosen)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_only_supervised_training_needs_labels(method: str):
    settings = TrainSettings(method=method)
    if method == "supervised":
        with pytest.raises(ChoiceError, match="--method supervised requires labels"):
            resolve_hyperparameters(settings, labelled=False)
    else:
        assert resolve_hyperparameters(settings, labelled=False).lr is not None


def test_momentum_and_local_crops_can_be_chosen_where_they_exist():
    for method in ("byol", "dino", "mocov2", "mocov3"):
        assert resolved(method=method, ema="constant").ema == "constant"
    for method in ("dino", "swav"):
        assert resolved(method=method, local_crops=0).local_crops == 0


@pytest.mark.parametrize(
    ("method", "hyperparameters", "image_size", "num_steps", "warned"),
    [
        ("simclr", "paper", 64, 300, True),
        ("simclr", "paper", 32, 300, False),  # a larger trust moves the weights further
        ("simclr", "paper", 64, 20_000, False),
        ("simclr", "reference", 64, 300, False),
        ("mocov2", "paper", 64, 300, False),
    ],
)
def test_few_steps_of_lars_are_warned_about(
    method: str, hyperparameters: str, image_size: int, num_steps: int, warned: bool
):
    said: list[str] = []
    settings = resolved(method=method, hyperparameters=hyperparameters, image_size=image_size)
    say_if_too_short(settings, num_steps, said.append)
    assert len(said) == warned
    assert all("300 steps" in line and "--hyperparameters rela" in line for line in said)
