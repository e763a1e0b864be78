"""The online classifier of rela.training.two_stage learns, whatever the method's optimizer.

- with every optimizer its layer takes the steps of an independent one, without decay and adaptation;
- with LARS it soon tells classes apart that are plain to see.
"""

from typing import Any

import pytest
import torch
from tiny_methods import NUM_CLASSES, SIZE, make_method
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rela.methods.optimizers import OptimizerSettings
from rela.training.two_stage import TwoStage

NUM_STEPS, BATCH = 60, 24


def batches() -> list[dict[str, Any]]:
    """Two noisy views of images whose colour is their class."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(NUM_STEPS):
        labels = torch.randint(NUM_CLASSES, (BATCH,), generator=generator)
        colour = 128 + 100 * torch.eye(3)[labels][:, :, None, None]
        noise = [30 * torch.rand(BATCH, 3, SIZE, SIZE, generator=generator) for _ in range(2)]
        found.append({"views": [(colour + n).clamp(0, 255).byte() for n in noise], "label": labels})
    return found


class Batches(list[None]):
    """As much of a loader as a module reads."""

    accumulate = 1


def train(settings: OptimizerSettings) -> tuple[TwoStage, list[Tensor], list[float]]:
    """The module, the classifier's inputs and its accuracies, step by step."""
    module = TwoStage(make_method("simsiam"), Batches([None]), settings, NUM_STEPS)
    optimizer = module.configure_optimizers()
    inputs: list[Tensor] = []
    head = module.classifier.classification_head
    head.register_forward_pre_hook(lambda _, x: inputs.append(x[0].clone()))
    accuracies = []
    for batch in batches():
        optimizer.zero_grad()
        result = module.training_step(batch, 0)
        result["loss"].backward()
        optimizer.step()
        accuracies.append(float(result["accuracy"]))
    return module, inputs, accuracies


PLAIN = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD, "lars": torch.optim.SGD}


@pytest.mark.parametrize("name", PLAIN)
def test_its_steps_are_those_of_a_layer_that_learns_by_itself(name: Any):
    settings = OptimizerSettings(name, 0.02, 0.3, "constant", decay_all=name == "adamw")
    torch.manual_seed(1)
    expected = TwoStage(make_method("simsiam"), Batches(), settings, 1).classifier
    torch.manual_seed(1)
    module, inputs, _ = train(settings)
    layer: nn.Linear = expected.classification_head
    options = {} if name == "adamw" else {"momentum": 0.9}
    optimizer = PLAIN[name](layer.parameters(), lr=0.02, weight_decay=0.0, **options)
    for features, batch in zip(inputs, batches(), strict=True):
        optimizer.zero_grad()
        cross_entropy(layer(features), batch["label"].repeat(2)).backward()
        optimizer.step()
    found = module.classifier.classification_head
    torch.testing.assert_close(found.weight, layer.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.bias, layer.bias, rtol=1e-4, atol=1e-5)


def test_it_learns_beside_lars():
    torch.manual_seed(1)
    _, _, accuracies = train(OptimizerSettings("lars", 0.2, 1e-6, "constant"))
    assert sum(accuracies[-10:]) / 10 > 0.95
