"""Normalisation of views.

Covers: values against torchvision's `normalize`, from either memory format into either, views of any
size, also one pixel; memory format and type of the result; moving with a module without being saved.
"""

import pytest
import torch
from torchvision.transforms.functional import normalize

from rela.data.views import NORMALIZE_MEAN, NORMALIZE_STD
from rela.models.normalization import Normalization

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def pixels(batch: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (batch, 3, side, side), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("given", FORMATS)
@pytest.mark.parametrize("wanted", FORMATS)
@pytest.mark.parametrize(("batch", "side"), [(4, 32), (3, 17), (1, 8), (2, 1)])
def test_values_are_torchvisions_in_the_format_asked_for(given, wanted, batch, side):
    view = pixels(batch, side).contiguous(memory_format=FORMATS[given])
    before = view.clone()
    found = Normalization()(view, FORMATS[wanted])
    assert found.dtype == torch.float32 and view.equal(before)
    assert found.is_contiguous(memory_format=FORMATS[wanted])
    expected = normalize(view.double() / 255, NORMALIZE_MEAN, NORMALIZE_STD)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


def test_another_mean_and_std_can_be_given():
    view = pixels(2, 9)
    mean, std = (0.1, 0.5, 0.9), (1.0, 0.5, 0.25)
    found = Normalization(mean, std)(view)
    expected = normalize(view.double() / 255, mean, std)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


def test_it_moves_with_a_module_and_is_not_saved_with_it():
    module = torch.nn.Sequential(Normalization())
    assert module.state_dict() == {}
    assert module.to("meta")[0].scale.device.type == "meta"
