"""torchvision's models that timm has too: the same tensors under the same names, the same features."""

import torch
from torch import nn

from rela.timm_backbones import require_timm

_ROUNDING = 1e-4  # of float32 through a deep network, as a share of the largest feature


def is_timm_twin(name: str, backbone: nn.Module, image_size: int) -> bool:
    """Whether timm's model `name` takes the weights of torchvision's as they are and does the same.

    True for ResNets, ResNeXts, Wide ResNets, DenseNets and Inception v3. Both models are run on two
    random images, so another version of either library cannot make a wrong promise.
    """
    timm = require_timm()
    if not timm.is_model(name):
        return False
    state = backbone.state_dict()
    with torch.device("meta"):
        shapes = timm.create_model(name, num_classes=0).state_dict()
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in shapes.items()}:
        return False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        twin = timm.create_model(name, num_classes=0).eval()
        images = torch.randn(2, 3, image_size, image_size)
    twin.load_state_dict(state)
    with torch.inference_mode():
        expected = backbone.eval()(images)
        difference = (twin(images) - expected).abs().max()
    return bool(difference <= _ROUNDING * expected.abs().max())
