"""Which of several processes this is, as Lightning, torchrun and SLURM tell it."""

import os

_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def is_another_rank() -> bool:
    """Whether this process was started beside a first one, which locks, speaks and publishes."""
    return any(int(os.environ.get(name, 0)) for name in _VARIABLES)


def silent(message: str) -> None:
    """What the first process says, the others need not repeat."""


def num_processes() -> int:
    """How many were started beside each other by torchrun or SLURM; 1 for a plain call."""
    return max(int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "SLURM_NTASKS"))
