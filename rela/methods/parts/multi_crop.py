"""Multi-crop: local crops beside the full-sized views."""

import torch
from torch import Tensor, nn

from rela.errors import ChoiceError
from rela.models.backbones import feature_dim

_PUBLISHED_SIDES = 96, 224  # local and full, arXiv 2006.09882
_SMALLEST_SIDE = 8


def local_size(image_size: int) -> int:
    """Side of local crops in pixels: 96 for 224, proportional for other sizes, at least 8."""
    local, full = _PUBLISHED_SIDES
    return min(image_size, max(_SMALLEST_SIDE, round(image_size * local / full)))


def check_local_crops(backbone: nn.Module, image_size: int) -> None:
    """Raise ChoiceError if the backbone does not accept crops of the local size."""
    size = local_size(image_size)
    try:
        feature_dim(backbone, size)
    except ChoiceError as error:
        raise ChoiceError(
            f"the model cannot take local crops of {size}×{size} pixels beside views of "
            f"{image_size}×{image_size}; choose --local-crops 0, a larger --image-size, or a model that "
            "accepts any size, such as resnet50 or a vision transformer timm:NAME"
        ) from error


def multi_crop_features(backbone: nn.Module, views: list[Tensor]) -> list[Tensor]:
    """Features [B, F] of the two full-sized views, then [L · B, F] of all L local crops at once."""
    features = [backbone(view) for view in views[:2]]
    if len(views) > 2:
        features.append(backbone(torch.cat(views[2:])))
    return features
