"""Runs as trainings leave them, made at once: fresh weights in place of trained ones."""

from pathlib import Path

import torch
from torch import Tensor, nn

from rela.models.backbones import build_backbone, feature_dim
from rela.models.preprocessing import preprocessing_for
from rela.models.weights import save_weights, state_sha256
from rela.pipeline.fingerprint import file_sha256
from rela.pipeline.manifest import Manifest, provenance
from rela.pipeline.spent import Spent
from rela.priors.earlier_run import BACKBONE_FILE, IDENTITY_FILE, write_identity
from rela.priors.prior import PriorIdentity
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.run import Run
from rela.stages.workspace.workspace import Workspace


def finished_run(
    root: Path,
    dataset: str,
    model: str,
    name: str,
    image_size: int = 32,
    prior: Representations | None = None,
) -> Run:
    """A run of `model` on a data set of the workspace `root`, its norms no longer as they began."""
    trained_on = Workspace(root).dataset(dataset)
    backbone = build_backbone(model, image_size, seed=0)
    _use(backbone, image_size)
    directory = root / "runs" / name
    directory.mkdir(parents=True)
    save_weights(directory / BACKBONE_FILE, backbone, {"arch": model})
    write_identity(
        directory,
        PriorIdentity(
            name=name,
            arch=model,
            image_size=image_size,
            weights_sha256=state_sha256(backbone.state_dict()),
            preprocessing=preprocessing_for(image_size),
            feature_dim=feature_dim(backbone, image_size),
        ),
    )
    manifest = Manifest(
        kind="run",
        fingerprint=name,
        inputs={
            "dataset": trained_on.fingerprint,
            "images": trained_on.images_sha256(),
        },
        parameters={
            "model": model, "image_size": image_size, "method": "byol", "epochs": 1, "batch_size": 8,
            "seed": 0, "data_ratio": 1.0, "handover": None,
            "prior": "none" if prior is None else prior.fingerprint,
        },
        content={
            "dataset": dataset, "prior": None if prior is None else prior.prior.name,
            "handover_step": None, "num_steps": 1,
        },
        file_sha256={n: file_sha256(directory / n) for n in (BACKBONE_FILE, IDENTITY_FILE)},
        provenance=provenance(Spent(1.0)),
    )  # fmt: skip
    manifest.write(directory)
    return Run(directory, manifest)


def sample_images(count: int = 3, image_size: int = 32) -> Tensor:
    return torch.randn(count, 3, image_size, image_size, generator=torch.Generator().manual_seed(5))


def _use(backbone: nn.Module, image_size: int) -> None:
    """Look at images, as a training does: batch norms take their statistics from them."""
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all that was seen
    backbone.train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for _ in range(3):
            backbone(torch.randn(16, 3, image_size, image_size))
    backbone.eval()
