"""Steps of every algorithm on a simulated cuda:0, by PyTorch's fake tensors, which have no values.

- stage 1, stage 2 with all optimizers, momentum and clipping, and embedding run without a tensor on the
  wrong device;
- nothing waits for the device: no `.item()`, no `nonzero`, no branch on a value, no copy to the CPU;
- a loss that does is noticed.

The backward pass is left out, since autograd's engine asks the CUDA driver for the device.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightly.loss import VICRegLoss
from tiny_methods import ALGORITHMS, BATCH, SIZE, WIDTH, make_method, shrink_dino
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from rela.methods.method import Method
from rela.methods.optimizers import OptimizerSettings
from rela.models.preprocessing import Preprocessing
from rela.representations.embedder import Embedder
from rela.training.handover import FixedHandOver
from rela.training.two_stage import TwoStage

GPU = torch.device("cuda:0")
WAITING = {"_local_scalar_dense", "nonzero", "item", "equal", "is_nonzero", "masked_select"}
OPTIMIZERS = {
    # with clipping, PyTorch's AdamW counts steps on the CPU, whose values fake tensors do not have
    "adamw": OptimizerSettings("adamw", 1e-3, 0.01, "constant"),
    "sgd": OptimizerSettings("sgd", 0.1, 1e-4, clip_norm=3.0),
    "lars": OptimizerSettings("lars", 0.3, 1e-6, trust=0.02, clip_trust=True),
}


class Unwaiting(TorchDispatchMode):
    """Refuses what would wait for a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name.split("::")[1], kwargs or {}
        assert name not in WAITING, f"{name} waits for the device"
        before = [a for a in args if isinstance(a, Tensor)]
        found = func(*args, **kwargs)
        if (
            name in ("_to_copy", "copy_")
            and isinstance(found, Tensor)
            and found.device.type == "cpu"
        ):
            assert all(a.device.type == "cpu" for a in before), f"{name} to the CPU"
        return found


@pytest.fixture(autouse=True)
def small_dino(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_dino(monkeypatch)


def move(module: nn.Module) -> None:
    """Every parameter and buffer onto the simulated GPU."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                moved = torch.empty(parameter.shape, dtype=parameter.dtype, device=GPU)
                part._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=GPU)


class Loader(list[None]):
    accumulate = 1

    def set_views(self, *_: Any, **__: Any) -> None:
        pass


def step(method: Method, stage: int, settings: OptimizerSettings, anchor: float = 0.0) -> None:
    """An optimizer step of the whole training module."""
    handover = FixedHandOver(99) if stage == 1 else None
    loader: Any = Loader([None] * 9)
    module = TwoStage(method, loader, settings, 100, handover, 5, learn_head=True, anchor=anchor)
    assert module.stage == stage
    with FakeTensorMode(allow_non_fake_inputs=False):
        move(module)
        configured = module.configure_optimizers()
        optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
        sizes = [SIZE, SIZE] if stage == 1 else [view.size for view in method.views()]
        batch = {
            "views": [torch.empty(BATCH, 3, s, s, dtype=torch.uint8, device=GPU) for s in sizes],
            "label": torch.empty(BATCH, dtype=torch.int64, device=GPU),
            "targets": [torch.empty(BATCH, 5, dtype=torch.float16, device=GPU)] * 2,
        }
        module._steps_seen = 50
        with Unwaiting():
            for _ in range(2):  # the second with momentum
                result = module.training_step(batch, 0)
                assert all(value.device == GPU for value in result.values())
                assert result["loss"].requires_grad
                for parameter in module.parameters():
                    if parameter.requires_grad:  # the engine of backward() needs a real GPU
                        parameter.grad = torch.empty_like(parameter)
                module.on_before_optimizer_step(optimizer)
                module.configure_gradient_clipping(optimizer, settings.clip_norm, "norm")
                optimizer.step()
                optimizer.zero_grad()
                method.update_momentum(None if stage == 1 else module.progress)


@pytest.mark.parametrize("hyperparameters", ["paper", "reference", "rela"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_stage_2_never_waits(name: str, hyperparameters: str):
    anchor = 3.0 if hyperparameters == "rela" else 0.0
    step(make_method(name, hyperparameters=hyperparameters), 2, OPTIMIZERS["sgd"], anchor)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_never_wait(optimizer: str):
    step(make_method("byol"), 2, OPTIMIZERS[optimizer])


@pytest.mark.parametrize("name", [*ALGORITHMS, "none"])
def test_stage_1_never_waits(name: str):
    step(make_method(name), 1, OPTIMIZERS["lars"])


@pytest.mark.filterwarnings("ignore:CUDA is not available:UserWarning")  # so there is no autocast
@pytest.mark.parametrize("name", [*ALGORITHMS, "none"])
def test_embedding_never_waits(name: str):
    embedder = Embedder(make_method(name).exported, Preprocessing(SIZE, SIZE), "cpu")
    with FakeTensorMode(allow_non_fake_inputs=False):
        move(embedder.backbone)
        embedder.device = GPU
        embedder._mean, embedder._std = (
            torch.empty(x.shape, device=GPU) for x in (embedder._mean, embedder._std)
        )
        images = torch.empty(BATCH, 3, SIZE, SIZE, dtype=torch.uint8, device=GPU)
        with Unwaiting(), torch.inference_mode():
            found = embedder.features(images)
    assert (found.shape, found.device) == ((BATCH, WIDTH), GPU)


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: VICRegLoss()(z, z),
        lambda z: z.sum().item(),
        lambda z: z if z.sum() > 0 else -z,
        lambda z: z.cpu(),
        lambda z: z + torch.zeros(BATCH, WIDTH),
    ],
)
def test_waiting_and_a_wrong_device_would_be_noticed(loss: Callable[[Tensor], Any]):
    with FakeTensorMode(allow_non_fake_inputs=False), Unwaiting():
        outputs = torch.empty(BATCH, WIDTH, device=GPU)
        with pytest.raises((AssertionError, RuntimeError)):
            loss(outputs)
