"""Semantic segmentation on frozen feature maps: a small head, upsampled to the masks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torchvision.models.segmentation.fcn import FCNHead

from rela.errors import DataError
from rela.evaluation.feature_maps import FeatureMaps
from rela.evaluation.metrics import confusion_matrix, segmentation_measures
from rela.evaluation.protocols import SegmentationProtocol
from rela.evaluation.voc import VOID

FCN, LINEAR = "FCN", "linear"


def head_for(backbone: nn.Module) -> str:
    """`FCN` for CNNs, `linear` for transformers, whose only convolution embeds the patches."""
    num_convolutions = sum(isinstance(module, nn.Conv2d) for module in backbone.modules())
    return FCN if num_convolutions > 1 else LINEAR


def segmentation_probe(
    train: FeatureMaps,
    val: FeatureMaps,
    head: str,
    protocol: SegmentationProtocol,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_progress: Callable[[int], Any] = lambda count: None,
) -> dict[str, Any]:
    """Train a head and return its `miou` and `pixel_accuracy` on `val`, in [0, 1].

    The head is torchvision's FCNHead or one 1×1 convolution; its scores are upsampled bilinearly to the
    masks. The loss is the mean over the labelled pixels of a batch; void pixels count neither in the loss
    nor in the measures. On a CPU `seed` determines the result.
    """
    device = torch.device(device)
    if not (val.masks != VOID).any():
        raise DataError("every pixel of every val mask is void; expected labelled pixels to score")
    batch_size = min(protocol.batch_size, len(train.masks))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # the head, and its dropout while training
        widths = train.features.shape[1], protocol.num_classes
        layers: nn.Module = nn.Conv2d(*widths, 1) if head == LINEAR else FCNHead(*widths)
        layers.to(device)
        optimizer = torch.optim.Adam(layers.parameters(), lr=protocol.lr)
        for _ in range(protocol.epochs):
            order = torch.randperm(len(train.masks), generator=generator)
            for rows in torch.split(order, batch_size):
                features, masks = _batch(train, rows, device)
                optimizer.zero_grad(set_to_none=True)
                scores = _upsampled(layers, features, masks)
                total = cross_entropy(scores, masks, ignore_index=VOID, reduction="sum")
                loss = total / (masks != VOID).sum().clamp(min=1)
                torch.autograd.backward(loss)
                optimizer.step()
                on_progress(len(rows))
    found: dict[str, Any] = segmentation_measures(
        _confusion(layers.eval(), val, protocol, device).cpu().numpy()
    )
    return {**found, "head": head, "batch_size": batch_size}


@torch.inference_mode()
def _confusion(
    layers: nn.Module, val: FeatureMaps, protocol: SegmentationProtocol, device: torch.device
) -> Tensor:
    counts = torch.zeros(protocol.num_classes, protocol.num_classes, dtype=torch.int64).to(device)
    for rows in torch.split(torch.arange(len(val.masks)), protocol.batch_size):
        features, masks = _batch(val, rows, device)
        predicted = _upsampled(layers, features, masks).argmax(dim=1)
        counts += confusion_matrix(predicted, masks, protocol.num_classes)
    return counts


def _batch(maps: FeatureMaps, rows: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    chosen = rows.numpy()
    features = torch.from_numpy(maps.features[chosen]).to(device).float()
    return features, torch.from_numpy(maps.masks[chosen]).to(device).long()


def _upsampled(layers: nn.Module, features: Tensor, masks: Tensor) -> Tensor:
    return interpolate(layers(features), masks.shape[1:], mode="bilinear", align_corners=False)
