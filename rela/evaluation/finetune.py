"""Fine-tuning: the whole backbone and a linear layer, or the layer only, on a share of the labels.

Procedure and numbers are SimCLR's (arXiv 2002.05709, appendix B.5) as in lightly's benchmarks; see
FinetuneProtocol and AugmentedLinearProtocol.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightly.utils.scheduler import CosineWarmupScheduler
from torch import nn
from torch.nn.functional import cross_entropy

from rela.data.beton.reader import Beton
from rela.data.loader import ViewLoader
from rela.data.sampling import label_subset
from rela.data.views import View
from rela.errors import DataError
from rela.evaluation.metrics import top_k_accuracies
from rela.evaluation.protocols import FinetuneProtocol
from rela.models.backbones import feature_dim
from rela.models.preprocessing import Preprocessing
from rela.representations.embedder import Embedder


def finetune_probe(
    backbone: nn.Module,
    preprocessing: Preprocessing,
    train: Beton,
    val: Beton,
    num_classes: int,
    protocol: FinetuneProtocol,
    seed: int = 0,
    device: torch.device | str = "cpu",
    num_threads: int | None = None,
    on_progress: Callable[[int], Any] = lambda count: None,
) -> dict[str, Any]:
    """Fine-tune a copy of the backbone and return validation accuracies in [0, 1].

    `top1`, and with 6 or more classes `top5`, on centre crops after the last epoch; `num_images` used
    for training, and `batch_size`.
    """
    model, found = finetune(
        backbone, preprocessing, train, num_classes, protocol, seed, device, num_threads,
        on_progress,
    )  # fmt: skip
    embedder = Embedder(model, preprocessing, str(device), num_threads=num_threads)
    scores = torch.from_numpy(embedder(val, np.arange(len(val))))
    return {**top_k_accuracies(scores, torch.from_numpy(val.labels)), **found}


def finetune(
    backbone: nn.Module,
    preprocessing: Preprocessing,
    train: Beton,
    num_classes: int,
    protocol: FinetuneProtocol,
    seed: int = 0,
    device: torch.device | str = "cpu",
    num_threads: int | None = None,
    on_progress: Callable[[int], Any] = lambda count: None,
) -> tuple[nn.Sequential, dict[str, int]]:
    """The fine-tuned model (images [B, 3, S, S] → scores [B, C]), with `num_images` and `batch_size`.

    All parameters of the copied backbone are trained, also frozen ones; or none, if the protocol says so,
    and then it is in eval mode. The batch is at most the number of images. Mixed precision on a GPU.
    `on_progress` is called with the number of images after each step.
    Raises DataError for fewer than two labelled images.
    """
    device = torch.device(device)
    rows = label_subset(train.labels, protocol.percent, seed)
    batch_size = protocol.batch_size_for(len(rows))
    if batch_size < 2:
        raise DataError(
            f"{train.path} has {len(rows)} labelled images to fine-tune on, expected at least 2; "
            "convert a folder with more"
        )
    size = preprocessing.crop
    view = View(size, jitter_probability=0.0, gray_probability=0.0)
    loader = ViewLoader(train, (view,), batch_size, seed, num_threads=num_threads, rows=rows)
    on_gpu = device.type == "cuda"
    mean = torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1)
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.manual_seed(seed)  # the layer, and dropout or stochastic depth while training
        layer = nn.Linear(feature_dim(backbone, size), num_classes)
        model = nn.Sequential(copy.deepcopy(backbone), layer).to(device)
        model.requires_grad_(True).train().to(memory_format=torch.channels_last)
        if not protocol.trains_backbone:
            model[0].requires_grad_(False).eval()
        optimizer = torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad],
            protocol.lr_for(batch_size),
            protocol.momentum,
            weight_decay=protocol.weight_decay,
        )
        scheduler = CosineWarmupScheduler(optimizer, 0, protocol.epochs * len(loader))
        scaler = torch.amp.GradScaler(device.type, enabled=on_gpu)
        for epoch in range(protocol.epochs):
            loader.set_epoch(epoch)
            for batch in loader:
                images = batch["views"][0].to(device, non_blocking=True).float().div(255)
                labels = batch["label"].to(device, non_blocking=True)
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(device.type, dtype=torch.float16, enabled=on_gpu):
                    loss = cross_entropy(model((images - mean) / std), labels)
                torch.autograd.backward(scaler.scale(loss))
                scaler.step(optimizer)
                scaler.update()
                scheduler.step()
                on_progress(len(labels))
    return model.eval(), {"num_images": len(rows), "batch_size": batch_size}
