"""The training module (rela.training.two_stage) on a linear backbone and 8×8 images, in fixtures."""

from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from betons import beton_of
from pictures import save_tree
from torch import Tensor, nn

from rela.data.beton.reader import Beton
from rela.data.loader import ViewLoader
from rela.data.views import stage1_views
from rela.methods.byol import BYOL
from rela.methods.method import Method, MethodOptions
from rela.methods.optimizers import OptimizerSettings
from rela.training.two_stage import TwoStage

# Lightning 2.6.6 looks at torch's pytrees in a way that torch 2.15 announces the end of.
LIGHTNING_WARNS = pytest.mark.filterwarnings(
    r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"
)
NUM_IMAGES, SIZE, WIDTH, TARGET_WIDTH, NUM_CLASSES = 12, 8, 16, 5, 3
ADAMW = OptimizerSettings("adamw", 1e-2, 0.01, "constant", decay_all=True)
BYOL_VIEWS = BYOL(nn.Identity(), MethodOptions(WIDTH, SIZE)).stage2_views()


@pytest.fixture(scope="module")
def beton(tmp_path_factory: pytest.TempPathFactory) -> Beton:
    sizes = {f"{i}.png": (SIZE, SIZE) for i in range(NUM_IMAGES)}
    return beton_of(save_tree(tmp_path_factory.mktemp("images"), sizes), num_classes=NUM_CLASSES)


@pytest.fixture
def targets() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(NUM_IMAGES, TARGET_WIDTH, generator=generator).half()


@pytest.fixture
def make_module(beton: Beton, targets: Tensor) -> Callable[..., tuple[TwoStage, ViewLoader]]:
    """A module and its loader, the same weights every time."""

    def make(
        batch_size: int = 4,
        targets: Tensor = targets,
        num_classes: int = 0,
        make_method: Callable[..., Method] = BYOL,
        optimizer: OptimizerSettings = ADAMW,
        **options: Any,
    ) -> tuple[TwoStage, ViewLoader]:
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, WIDTH))
        method = make_method(backbone, MethodOptions(WIDTH, SIZE, NUM_IMAGES, num_classes))
        has_stage1 = options.get("handover") is not None
        views = stage1_views(SIZE) if has_stage1 else method.views()
        loader = ViewLoader(beton, views, batch_size, targets=targets if has_stage1 else None)
        width = TARGET_WIDTH if has_stage1 else 0
        module = TwoStage(method, loader, optimizer, 1000, target_width=width, **options)
        return module, loader

    return make


class Recorder(pl.Callback):
    """Every batch as the module gets it, the learning rate of its step, and what the module returns."""

    def __init__(self) -> None:
        self.batches: list[dict[str, Any]] = []
        self.objectives: list[float] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.batches.append(batch)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.objectives.append(float(outputs["objective"]))


def fit(
    module: TwoStage, loader: ViewLoader, epochs: int, accumulate: int = 1, **options: Any
) -> Recorder:
    recorder = Recorder()
    pl.Trainer(
        accelerator="cpu", max_epochs=epochs, accumulate_grad_batches=accumulate, logger=False,
        callbacks=[recorder], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, **options,
    ).fit(module, loader)  # fmt: skip
    return recorder
