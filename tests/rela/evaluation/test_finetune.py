"""Fine-tuning (rela.evaluation.finetune, rela.data.sampling).

- labelled subsets: the same number of every class, at least one, a function only of the seed;
- an easy set is learned; every parameter moves, also frozen ones, in a copy: the backbone given stays;
- the first steps are SGD with momentum at the published rate; results depend only on the seed;
- with a frozen backbone, the layer's steps are SGD's on features of the same crops and flips (lightly's
  linear protocol);
- small data sets: the batch is cut, which is told, and no training has zero steps.
"""

import copy
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from betons import in_memory
from torch import nn

from rela.data.beton.reader import Beton
from rela.data.loader import ViewLoader
from rela.data.sampling import label_subset
from rela.data.views import View
from rela.errors import DataError
from rela.evaluation.finetune import finetune, finetune_probe
from rela.evaluation.protocols import FINETUNE_PROTOCOLS, LIGHTLY_PROTOCOL, FinetuneProtocol
from rela.models.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(16, 16)
NUM_CLASSES = 7
QUICK = FinetuneProtocol(100, 8, lr=0.4, batch_size=32)


def coloured_beton(count: int, seed: int) -> Beton:
    """Noisy 18×18 images whose mean colour tells the class: a corner of the colour cube each."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % NUM_CLASSES
    corners = np.array([[(c >> b) & 1 for b in range(3)] for c in range(NUM_CLASSES)])
    means = 70 + 110 * corners[labels]
    pixels = means[:, None, None] + rng.normal(0, 30, (count, 18, 18, 3))
    return in_memory(list(np.clip(pixels, 0, 255).astype(np.uint8)), NUM_CLASSES)


@pytest.fixture(scope="module")
def train():
    return coloured_beton(210, 0)


@pytest.fixture(scope="module")
def val():
    return coloured_beton(70, 1)


def small_backbone() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        ).eval()  # fmt: skip


# Which labels


@pytest.mark.parametrize("percent", [1, 10, 37])
@pytest.mark.parametrize("seed", [0, 3])
def test_a_share_of_the_labels_has_as_many_of_every_class(percent: int, seed: int):
    labels = np.random.default_rng(0).integers(0, 10, 5000)
    rows = label_subset(labels, percent, seed)
    assert len(set(rows.tolist())) == len(rows)
    assert Counter(labels[rows].tolist()) == dict.fromkeys(range(10), 5 * percent)


def test_a_class_of_few_gives_what_it_has_and_one_at_least():
    labels = np.array([0] * 90 + [1] * 9 + [2])
    assert Counter(labels[label_subset(labels, 10, 0)].tolist()) == {0: 3, 1: 3, 2: 1}
    assert Counter(labels[label_subset(labels, 1, 0)].tolist()) == {0: 1, 1: 1, 2: 1}


def test_the_subset_is_a_function_of_the_seed_alone_and_nested():
    labels = np.arange(1000) % 10
    np.random.seed(1)  # nothing global plays a part
    one, same, other = (label_subset(labels, 10, seed) for seed in (0, 0, 1))
    assert one.tolist() == same.tolist() != other.tolist()
    assert set(label_subset(labels, 1, 0).tolist()) < set(one.tolist())
    assert label_subset(labels, 100, 4).tolist() == list(range(1000))
    unlabelled = np.where(labels == 9, -1, labels)
    assert (unlabelled[label_subset(unlabelled, 10, 0)] >= 0).all()


# Training


def test_an_easy_set_is_learned_and_more_labels_help(train: Beton, val: Beton):
    found = finetune_probe(small_backbone(), PREPROCESSING, train, val, NUM_CLASSES, QUICK)
    assert found["top1"] > 0.8  # chance is 1 / 7
    assert found["top1"] <= found["top5"] <= 1
    assert (found["num_images"], found["batch_size"]) == (210, 32)


def test_every_parameter_of_a_copy_moves(train: Beton):
    backbone = small_backbone()
    backbone[0].requires_grad_(False)
    before = copy.deepcopy(backbone.state_dict())
    model, _ = finetune(backbone, PREPROCESSING, train, NUM_CLASSES, QUICK)
    assert not model.training
    after = model[0].state_dict()
    assert all(not torch.equal(before[key], after[key]) for key in before)
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())
    assert not backbone[0].weight.requires_grad


def test_two_steps_are_those_of_sgd_with_momentum_at_the_published_rate(train: Beton):
    protocol = FinetuneProtocol(100, 2)
    backbone = small_backbone()
    backbone[3].p = 0.0
    model, _ = finetune(backbone, PREPROCESSING, train, NUM_CLASSES, protocol, seed=3)

    with torch.random.fork_rng():
        torch.manual_seed(3)
        layer = nn.Linear(8, NUM_CLASSES)
    expected = nn.Sequential(copy.deepcopy(backbone), layer).train()
    loader = ViewLoader(train, (View(16, jitter_probability=0, gray_probability=0),), 210, seed=3)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (PREPROCESSING.mean, PREPROCESSING.std))
    velocity = [torch.zeros_like(p) for p in expected.parameters()]
    for epoch, share in enumerate((1.0, 0.001)):  # a half cosine of two steps
        loader.set_epoch(epoch)
        [batch] = loader
        expected.zero_grad()
        scores = expected((batch["views"][0].float() / 255 - mean) / std)
        nn.functional.cross_entropy(scores, batch["label"]).backward()
        with torch.no_grad():
            for parameter, v in zip(expected.parameters(), velocity, strict=True):
                v.mul_(0.9).add_(parameter.grad)
                parameter -= share * 0.05 * 210 / 256 * v
    for found, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_lightlys_layer_learns_from_crops_and_flips_on_a_frozen_backbone(train: Beton):
    assert (LIGHTLY_PROTOCOL.epochs, LIGHTLY_PROTOCOL.lr_for(256)) == (90, 0.1)
    assert LIGHTLY_PROTOCOL.name == "linear-lightly"
    backbone = small_backbone()
    before = copy.deepcopy(backbone.state_dict())
    model, found = finetune(
        backbone, PREPROCESSING, train, NUM_CLASSES, replace(LIGHTLY_PROTOCOL, epochs=3), seed=3
    )
    assert "210 images" in LIGHTLY_PROTOCOL.describe(found)
    assert all(torch.equal(before[k], v) for k, v in model[0].state_dict().items())

    with torch.random.fork_rng():
        torch.manual_seed(3)
        layer = nn.Linear(8, NUM_CLASSES)
    sgd = torch.optim.SGD(layer.parameters(), 0.1 * 210 / 256, momentum=0.9)
    loader = ViewLoader(train, (View(16, jitter_probability=0, gray_probability=0),), 210, seed=3)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (PREPROCESSING.mean, PREPROCESSING.std))
    for epoch, share in enumerate((1.0, 0.5005, 0.001)):  # a half cosine of three steps
        loader.set_epoch(epoch)
        [batch] = loader
        with torch.no_grad():
            features = backbone((batch["views"][0].float() / 255 - mean) / std)
        sgd.param_groups[0]["lr"] = share * 0.1 * 210 / 256
        sgd.zero_grad()
        nn.functional.cross_entropy(layer(features), batch["label"]).backward()
        sgd.step()
    torch.testing.assert_close(model[1].weight, layer.weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model[1].bias, layer.bias, rtol=1e-4, atol=1e-6)


def test_the_result_depends_on_the_seed_alone(train: Beton):
    states = []
    for global_seed, seed in ((0, 0), (1, 0), (1, 2)):
        torch.manual_seed(global_seed)
        model, _ = finetune(
            small_backbone(), PREPROCESSING, train, NUM_CLASSES, QUICK, seed, num_threads=seed + 1
        )
        assert torch.initial_seed() == global_seed
        states.append(model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["1.weight"], states[2]["1.weight"])


@pytest.mark.parametrize("protocol", FINETUNE_PROTOCOLS, ids=lambda protocol: protocol.name)
def test_a_batch_larger_than_the_data_is_cut_and_told(train: Beton, protocol: FinetuneProtocol):
    num_images = {100: 210, 10: 21, 1: 7}[protocol.percent]
    seen: list[int] = []
    short = FinetuneProtocol(protocol.percent, 2)
    _, found = finetune(
        small_backbone(), PREPROCESSING, train, NUM_CLASSES, short, on_progress=seen.append
    )
    assert found == {"num_images": num_images, "batch_size": num_images}
    assert seen == [num_images] * 2
    assert short.num_seen(num_images) == sum(seen)
    words = protocol.describe(found)
    assert f"batch {num_images} (cut from 256)" in words
    assert f"{num_images} images" in words


def test_a_single_image_is_refused():
    with pytest.raises(DataError, match="1 labelled images to fine-tune on, expected at least 2"):
        finetune(small_backbone(), PREPROCESSING, coloured_beton(1, 0), 1, QUICK)
