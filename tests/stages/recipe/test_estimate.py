"""Estimates: a line through two timings, rates of a workspace in closed form, steps of both stages.

Measured speeds themselves are the machine's; that a dry run adds them up is in test_run.py.
"""

from pathlib import Path

import pytest
from command_line import Rela
from nouns import dataset_of
from PIL import Image

from rela.stages.recipe.estimate import Estimator
from rela.stages.recipe.kinds import EmbedJob, Outlook
from rela.stages.recipe.rates import Rates, train_key
from rela.stages.recipe.trial_steps import extrapolated_seconds
from rela.stages.requests import Embed
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

SETTINGS = TrainSettings(prior="none", model="resnet18", image_size=64, batch_size=10, epochs=4)


def estimator() -> Estimator:
    """After a run with 2 s per image in stage 1, 3 s in stage 2, 0.5 s of waiting, and 7 s beside."""
    rates = Rates()
    found = rates.train[train_key(SETTINGS)]
    found.stages[1].add(2.0 * 100, 100, "run one")
    found.stages[2].add(3.0 * 40, 40, "run one")
    found.wait.add(0.5 * 140, 140, "run one")
    found.overhead_seconds.append(7.0)
    return Estimator(rates, False, print)


def test_two_timings_give_what_a_step_costs_and_what_an_image_costs():
    line = [(2, 0.1 + 2 * 0.03), (8, 0.1 + 8 * 0.03)]
    assert extrapolated_seconds(line, 512) == pytest.approx(0.1 + 512 * 0.03)
    assert extrapolated_seconds(line, 8) == pytest.approx(0.1 + 8 * 0.03)
    assert extrapolated_seconds([(2, 0.5)], 8) == pytest.approx(2.0)
    assert extrapolated_seconds([(2, 0.5), (8, 0.4)], 32) == pytest.approx(0.4)  # never less


def test_a_training_is_steps_times_batch_times_rate():
    # 0.5 of 106 images are 53: 5 steps of 10 in each of 4 epochs
    plain = TrainSettings(**{**vars(SETTINGS), "data_ratio": 0.5})
    found = estimator().train(dataset_of(106), plain)
    assert found.seconds == pytest.approx(7.0 + 200 * (3.0 + 0.5))
    assert found.basis == "run one"
    half = TrainSettings(**{**vars(plain), "prior": "random", "handover": 0.25})
    found = estimator().train(dataset_of(106), half)
    assert found.seconds == pytest.approx(7.0 + 50 * 2.0 + 150 * 3.0 + 200 * 0.5)


def test_an_adaptive_hand_over_is_taken_from_runs_alike_or_assumed():
    adaptive = TrainSettings(
        **{**vars(SETTINGS), "prior": "random", "hyperparameters": "reference"}
    )
    known = estimator()
    known.rates.train[train_key(adaptive)].handover_steps += [5, 12, 30]
    found = known.train(dataset_of(100), adaptive)  # 40 steps
    assert found.seconds == pytest.approx(7.0 + 120 * 2.0 + 280 * 3.0 + 400 * 0.5)
    assert "step 12" in found.basis
    long = TrainSettings(**{**vars(adaptive), "epochs": 1000})
    words = estimator().train(dataset_of(100), long).basis  # the rule needs 557 steps at the least
    assert 557 <= int(words.rpartition("step ")[2]) <= 4440
    short = estimator().train(dataset_of(100), adaptive)
    assert short.seconds == pytest.approx(7.0 + 400 * (2.0 + 0.5))  # never within 40 steps


@pytest.mark.parametrize(("chosen", "seconds"), [(None, 200.0), (32, 10.0)])
def test_a_published_prior_sees_its_own_size_unless_another_is_chosen(
    tmp_path: Path, chosen: int | None, seconds: float
):
    known = estimator()
    known.rates.embed["resnet18", 224].add(2.0 * 7, 7, "earlier")
    known.rates.embed["resnet18", 32].add(0.1 * 7, 7, "earlier")
    outlook = Outlook(Workspace(tmp_path), [], known, converted={"digits": dataset_of(100)})
    request = Embed(dataset="digits", prior="resnet18", image_size=chosen)
    job = EmbedJob("recipe.toml", "digits", request, ())
    assert job.estimate(outlook).seconds == pytest.approx(seconds)


@pytest.mark.parametrize("crops", [0, 2])
def test_rows_of_images_that_were_embedded_cost_nothing(rela: Rela, images: Path, crops: int):
    prior = "random:timm:test_resnet"
    Image.new("RGB", (16, 16)).save(
        images / "train/cat/new.png"
    )  # the last, so that the others keep their crops
    rela("convert", images, "--name", "more")
    known = estimator()
    known.rates.embed["timm:test_resnet", 16].add(2.0 * 7, 7, "earlier")
    outlook = Outlook(Workspace(Path("workspace")), [], known)
    request = Embed(dataset="more", prior=prior, crops=crops)
    job = EmbedJob("recipe.toml", "more", request, ())
    of_all = 2.0 * 25 * (crops or 1)
    assert job.estimate(outlook).seconds == pytest.approx(of_all)
    rela("embed", "images", "--prior", prior, "--crops", crops)
    outlook = Outlook(Workspace(Path("workspace")), [], known)
    assert job.estimate(outlook).seconds == pytest.approx(of_all / 25)


def test_unmeasured_costs_are_unknown():
    other = TrainSettings(**{**vars(SETTINGS), "batch_size": 20})
    found = estimator().train(dataset_of(100), other)
    assert found.seconds is None
    assert "resnet18 at 64 px" in found.basis
