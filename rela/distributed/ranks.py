"""Rank and world size of this process, as torchrun, srun and `rela train --devices N` set them."""

import os
from dataclasses import dataclass

from rela.errors import ChoiceError
from rela.pipeline.processes import end_with_parent

LAUNCHER_VARIABLE = "RELA_LAUNCHER"  # process id of the `rela train` that started this process


@dataclass(frozen=True)
class Ranks:
    """This process in its job: `rank` of `world_size`; on this machine `local_rank` of `local_size`."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1
    by_slurm: bool = False

    @property
    def num_nodes(self) -> int:
        """Number of machines; each runs `local_size` processes."""
        return self.world_size // self.local_size


def current_ranks() -> Ranks:
    """Read from the environment; a process started on its own is rank 0 of 1."""
    environment = os.environ
    if "RANK" in environment and "WORLD_SIZE" in environment:
        size = int(environment["WORLD_SIZE"])
        return Ranks(
            int(environment["RANK"]),
            size,
            int(environment.get("LOCAL_RANK", 0)),
            int(environment.get("LOCAL_WORLD_SIZE", size)),
        )
    # a batch script has SLURM_NTASKS too, but is a single process; only srun starts steps
    if "SLURM_STEP_NUM_TASKS" in environment:
        size = int(environment["SLURM_STEP_NUM_TASKS"])
        num_nodes = int(environment.get("SLURM_STEP_NUM_NODES", 1))
        rank, local_rank = int(environment["SLURM_PROCID"]), int(environment["SLURM_LOCALID"])
        return Ranks(rank, size, local_rank, size // num_nodes, by_slurm=True)
    return Ranks()


def end_with_launcher() -> None:
    """If torchrun or `rela train` started this process, have it killed when the launcher ends."""
    launcher = os.environ.get(LAUNCHER_VARIABLE)
    if launcher is None and "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    end_with_parent(None if launcher is None else int(launcher))


def free_port() -> int:
    """A free TCP port on this machine."""
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def parse_shard(text: str | None) -> tuple[int, int]:
    """ "I/N" → (I, N); None → the shard that torchrun or SLURM assigned."""
    if text is None:
        return shard_from_environment()
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise ChoiceError(f"--shard {text!r}: expected I/N with I from 0 to N - 1, such as 0/4")
    return int(index), int(count)


def shard_from_environment() -> tuple[int, int]:
    """(shard, num_shards) of a torchrun worker or a SLURM array task; otherwise (0, 1)."""
    for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")):
        if rank in os.environ and size in os.environ:
            first = int(os.environ.get("SLURM_ARRAY_TASK_MIN", 0)) if rank.startswith("S") else 0
            shard, num_shards = int(os.environ[rank]) - first, int(os.environ[size])
            if not 0 <= shard < num_shards:
                raise ChoiceError(f"{rank}={os.environ[rank]} is not below {size}={num_shards}")
            return shard, num_shards
    return 0, 1
