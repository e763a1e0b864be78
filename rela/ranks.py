"""Which of several processes this is, as torchrun, srun and `rela train --devices N` tell it. Light."""

import os
import socket
from dataclasses import dataclass

from rela.end_with_parent import end_with_parent

LAUNCHER_VARIABLE = "RELA_LAUNCHER"  # the process that started this one beside others


@dataclass(frozen=True)
class Ranks:
    """This process among those of one job: `rank` of `world_size`, `local_rank` of `local_size` here."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1
    by_slurm: bool = False

    @property
    def num_nodes(self) -> int:
        """Machines that take part, each with as many processes as this one."""
        return self.world_size // self.local_size


def current_ranks() -> Ranks:
    """From the environment; a process that nobody started beside others is the only one."""
    environment = os.environ
    if "RANK" in environment and "WORLD_SIZE" in environment:
        size = int(environment["WORLD_SIZE"])
        return Ranks(
            int(environment["RANK"]),
            size,
            int(environment.get("LOCAL_RANK", 0)),
            int(environment.get("LOCAL_WORLD_SIZE", size)),
        )
    # a batch script has SLURM_NTASKS, too, but is alone; only srun starts steps
    if "SLURM_STEP_NUM_TASKS" in environment:
        size = int(environment["SLURM_STEP_NUM_TASKS"])
        num_nodes = int(environment.get("SLURM_STEP_NUM_NODES", 1))
        rank, local_rank = int(environment["SLURM_PROCID"]), int(environment["SLURM_LOCALID"])
        return Ranks(rank, size, local_rank, size // num_nodes, by_slurm=True)
    return Ranks()


def end_with_launcher() -> None:
    """From here on, a process that torchrun or `rela train` started is killed when that one ends."""
    launcher = os.environ.get(LAUNCHER_VARIABLE)
    if launcher is None and "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    end_with_parent(None if launcher is None else int(launcher))


def free_port() -> int:
    """One of this machine that nobody listens at now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
