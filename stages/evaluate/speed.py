"""How large and how fast a model is on this machine: measured once, kept in evaluations/."""

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rela.errors import DataError, failure_of
from rela.pipeline.cores import num_cores
from rela.pipeline.files import keep_record
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.manifest import installed_versions
from rela.priors import POOLED
from rela.priors.earlier_run import read_identity
from rela.stages.display import human_bytes
from rela.stages.priors.again import request_again
from rela.stages.priors.identify import identify
from rela.stages.priors.records import Known
from rela.stages.workspace.run import Run
from rela.stages.workspace.schema import Float, Int, read_json
from rela.stages.workspace.workspace import Workspace, slug

if TYPE_CHECKING:
    from torch import nn

_BATCH_SIZE, _SECONDS, _BATCHES = 16, 0.5, 3
_NOT_BY_NAME = ("clip:", "torchscript")  # architectures that only their weights build


@dataclass(frozen=True)
class Speed:
    """A model on one machine.

    - `weights_bytes`: parameters and buffers as they are in memory;
    - `image_size`: side of the input in pixels, joined by + for a combination;
    - `images_per_second`: forward passes of `batch_size` images in memory, without loading; on a CPU those
      of one core in a second of its time, which other jobs do not change.
    """

    num_parameters: Int
    weights_bytes: Int
    image_size: str
    images_per_second: Float
    batch_size: Int
    device: str
    machine: dict[str, str | int | None]

    @property
    def where(self) -> str:
        """`per core`, or `on NVIDIA H100`."""
        return "per core" if self.device == "cpu" else f"on {self.device}"

    def words(self) -> str:
        """`3.37 M parameters, 13.7 MB, 45 images/s per core at 224 px`."""
        return (
            f"{self.num_parameters / 1e6:.2f} M parameters, {human_bytes(self.weights_bytes)}, "
            f"{self.images_per_second:,.0f} images/s {self.where} at {self.image_size} px"
        )


def speed_of(workspace: Workspace, several: Sequence[Known], device: str) -> Speed | str:
    """Size and speed of a model, or of several one after the other; or why they are not known.

    A record of this machine is reused, and then torch is not imported. Never fails.
    """
    try:
        speeds = [_speed(workspace, known, device) for known in several]
    except Exception as error:  # a figure beside the accuracies, which are there
        failure = failure_of(error)
        return failure[0] if failure else repr(error)
    if len(speeds) == 1:
        return speeds[0]
    return Speed(
        sum(speed.num_parameters for speed in speeds),
        sum(speed.weights_bytes for speed in speeds),
        "+".join(speed.image_size for speed in speeds),
        1 / sum(1 / speed.images_per_second for speed in speeds),
        speeds[0].batch_size,
        speeds[0].device,
        speeds[0].machine,
    )


def speed_of_run(workspace: Workspace, run: Run, device: str) -> Speed | str:
    """Likewise, of the model of a run."""
    try:
        identity = read_identity(run.path)
    except DataError as error:
        return str(error)
    return speed_of(workspace, [(identity, run.name)], device)


def _speed(workspace: Workspace, known: Known, device: str) -> Speed:
    """By architecture: other weights are as large and as fast."""
    identity, machine = known[0], {**_machine(), "asked": device}
    key = fingerprint([identity.arch, identity.image_size, identity.layer, machine])
    name = f"speed-{slug(identity.arch)}-{identity.image_size}-{key[:12]}.json"
    path = workspace.evaluations_dir / name
    found = read_json(path, Speed)
    if found is None:
        backbone = _backbone(workspace, known)
        num_parameters, num_bytes = _size(backbone)
        rate, batch_size, on = _measured(backbone, known, device)
        size = str(identity.image_size)
        found = Speed(num_parameters, num_bytes, size, rate, batch_size, on, machine)
        keep_record(path, json.dumps(asdict(found), indent=1).encode())
    return found


def _machine() -> dict[str, Any]:
    """Without torch: what is likely to change the speed."""
    return {
        "host": platform.node(),
        "processor": platform.machine(),
        "cores": num_cores(),
        "torch": installed_versions().get("torch"),
    }


def _backbone(workspace: Workspace, known: Known) -> "nn.Module":
    identity = known[0]
    if identity.arch.startswith(_NOT_BY_NAME):
        model: nn.Module = identify(workspace, request_again(workspace, known)).load()
        return model
    from rela.models.backbones import build_backbone
    from rela.models.layers import LayerFeatures

    backbone = build_backbone(identity.arch, identity.image_size, seed=0)
    return backbone if identity.layer == POOLED else LayerFeatures(backbone, identity.layer)


def _size(backbone: "nn.Module") -> tuple[int, int]:
    parameters, buffers = list(backbone.parameters()), list(backbone.buffers())
    num_bytes = sum(tensor.nbytes for tensor in (*parameters, *buffers))
    return sum(tensor.numel() for tensor in parameters), num_bytes


def _measured(backbone: "nn.Module", known: Known, device: str) -> tuple[float, int, str]:
    """Images per second in the fastest batch, the size of a batch, and the device."""
    import torch

    from rela.representations.embedder import Embedder

    embedder = Embedder(backbone, known[0].preprocessing, device)
    on, size, num_threads = embedder.device, known[0].image_size, torch.get_num_threads()
    shape, random = (_BATCH_SIZE, 3, size, size), torch.Generator().manual_seed(0)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=random)
    clock = time.perf_counter if on.type == "cuda" else time.thread_time
    seconds: list[float] = []
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # features of untrained weights may vanish, which is slow
    try:
        with torch.inference_mode():
            embedder.features(images).cpu()  # warm up
            while len(seconds) < _BATCHES or sum(seconds) < _SECONDS:
                start = clock()
                embedder.features(images).cpu()  # waits for a GPU
                seconds.append(clock() - start)
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(num_threads)
    name = torch.cuda.get_device_name(on) if on.type == "cuda" else on.type
    return round(_BATCH_SIZE / min(seconds), 1), _BATCH_SIZE, name
