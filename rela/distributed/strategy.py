"""Trainer options for one device, or for one process per device on one or several machines."""

import re
import sys
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.plugins import LayerSync
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rela.distributed.ranks import current_ranks
from rela.distributed.sync_batchnorm import synchronize
from rela.errors import ChoiceError
from rela.pipeline.cores import num_cores

_WORDS_OF_LOST_CONNECTIONS = ("gloo", "nccl", "connection", "socket", "timed out", "broken pipe")


def chosen_devices(wanted: str) -> int | list[int]:
    """ "auto", "2" or "0,3" → a number or indices; raises ChoiceError listing what exists."""
    has_gpu = torch.cuda.is_available()
    count = torch.cuda.device_count() if has_gpu else 1
    text = wanted.replace(" ", "")
    if text == "auto":
        return count
    if text.isdigit() and int(text) > 0:
        return int(text)
    if has_gpu and all(part.isdigit() and int(part) < count for part in text.split(",")):
        return [int(part) for part in text.split(",")]
    if not has_gpu:
        raise ChoiceError(
            f"--devices {wanted}: expected auto, or a number of processes from 1; there is no GPU here"
        )
    raise ChoiceError(
        f"--devices {wanted}: expected auto, a number or indices; {count} GPUs, numbered from 0"
    )


def num_devices(wanted: str) -> int:
    """Number of processes that `--devices wanted` starts on this machine."""
    devices = chosen_devices(wanted)
    return devices if isinstance(devices, int) else len(devices)


def device_words(wanted: str) -> str:
    """`NVIDIA H100 80GB HBM3`, `4 × …`, `CPU, 2 cores`: where a training with `--devices wanted` runs."""
    count = num_devices(wanted)
    if not torch.cuda.is_available():
        processes = f", {count} processes" if count > 1 else ""
        return f"CPU, {num_cores()} core{'s' * (num_cores() != 1)}{processes}"
    name = torch.cuda.get_device_name()
    return name if count == 1 else f"{count} × {name}"


def device_options(wanted: str, rank_timeout_seconds: float) -> dict[str, Any]:
    """Keyword arguments of pl.Trainer; under torchrun or srun the number of processes decides."""
    ranks, devices = current_ranks(), chosen_devices(wanted)
    has_gpu = torch.cuda.is_available()
    if ranks.world_size > 1 and num_devices(wanted) != ranks.local_size:
        devices = ranks.local_size
        count = torch.cuda.device_count()
        if has_gpu and count < ranks.local_size:
            raise ChoiceError(
                f"{ranks.local_size} processes on this machine, which see {count} GPUs; start as many as "
                "there are GPUs, and let each see all of them (srun --gpu-bind=none)"
            )
    options = {"accelerator": "gpu" if has_gpu else "cpu", "devices": devices}
    if ranks.world_size == 1:
        if num_devices(wanted) > 1:
            raise ChoiceError(
                f"{num_devices(wanted)} devices need as many processes; start them with `rela train` or "
                "torchrun"
            )
        # a single process ignores the variables of a batch system
        return {**options, "strategy": "auto", "plugins": [LightningEnvironment()]}
    by_slurm = SLURMEnvironment(auto_requeue=False) if ranks.by_slurm else None
    environment: ClusterEnvironment = by_slurm or TorchElasticEnvironment()
    return {
        **options,
        "num_nodes": ranks.num_nodes,
        "strategy": RankStrategy(
            cluster_environment=environment, timeout=timedelta(seconds=rank_timeout_seconds)
        ),
        "plugins": [_BatchNormOverRanks()],
    }


class RankStrategy(DDPStrategy):  # type: ignore[misc]
    """DDP that looks for unused parameters only while the training module has some."""

    def configure_ddp(self) -> None:
        """Wrap the module for its current stage."""
        self.model = DistributedDataParallel(
            self.lightning_module,
            device_ids=self.determine_ddp_device_ids(),
            find_unused_parameters=self._finds_unused,
        )

    def follow_stage(self) -> None:
        """Wrap the module again if its stage has changed."""
        old: Any = self.model
        if old.find_unused_parameters != self._finds_unused:
            old._remove_autograd_hooks()
            self.configure_ddp()

    @property
    def _finds_unused(self) -> bool:
        module: Any = self.lightning_module
        return bool(module.has_unused_parameters)


class _BatchNormOverRanks(LayerSync):  # type: ignore[misc]
    """Batch norm over all processes: torch's SyncBatchNorm on GPUs, our own layer on CPUs."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Replace every batch norm; those of timm also apply an activation."""
        if not torch.cuda.is_available():
            return synchronize(model)
        convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
        if "timm" in sys.modules:
            from timm.layers.norm_act import convert_sync_batchnorm as convert
        converted: nn.Module = convert(model)
        return converted

    def revert(self, model: nn.Module) -> nn.Module:
        """Nothing to undo: in evaluation the layers act as ordinary batch norm."""
        return model


def is_lost_connection(error: BaseException) -> bool:
    """Whether a collective operation failed because another process ended, stopped or is unreachable."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(w in text for w in _WORDS_OF_LOST_CONNECTIONS)


def lost_rank_message(error: BaseException) -> str:
    """The message of LostRankError, in one line."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    reason = re.sub(r"^\[\S+\] ", "", line).split(". ")[0].strip(" .")  # without the C++ file
    return (
        f"another process of this training ended or cannot be reached ({reason}); resume "
        "with `rela train --resume`"
    )
