"""A prior may be asked for by the name that tables show."""

import pytest

from rela.priors import POOLED, PriorRequest
from rela.priors.names import from_displayed_name


@pytest.mark.parametrize(
    ("shown", "name", "seed", "layer"),
    [
        ("resnet18", "resnet18", 0, POOLED),
        ("random:resnet18-seed3", "random:resnet18", 3, POOLED),
        ("random:timm:resnet18-seed0@layer3", "random:timm:resnet18", 0, "layer3"),
        ("vit_b_16@class+patches", "vit_b_16", 0, "class+patches"),
        ("run:mine@stage4", "run:mine", 0, "stage4"),
        ("clip:RN50@openai", "clip:RN50@openai", 0, POOLED),
        ("file:a@b-seed1.pt", "file:a@b-seed1.pt", 0, POOLED),
    ],
)
def test_names_tell_seed_and_layer(shown: str, name: str, seed: int, layer: str):
    assert from_displayed_name(PriorRequest(shown)) == PriorRequest(name, seed=seed, layer=layer)


def test_options_override_the_name():
    for request in (
        PriorRequest("random:resnet18-seed3", seed=4),
        PriorRequest("vit_b_16@class", layer="patches"),
    ):
        assert from_displayed_name(request) == request
