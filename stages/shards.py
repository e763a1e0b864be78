"""Which share of the work is this process's: as it was told, or as torchrun and SLURM say."""

import os

from rela.errors import ChoiceError


def parse_shard(text: str | None) -> tuple[int, int]:
    """ "I/N" → (I, N); without a text, what torchrun or SLURM say."""
    if text is None:
        return shard_from_environment()
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise ChoiceError(f"--shard {text!r}: expected I/N with I from 0 to N - 1, such as 0/4")
    return int(index), int(count)


def shard_from_environment() -> tuple[int, int]:
    """(shard, num_shards) of a torchrun worker or a SLURM array task, else (0, 1)."""
    for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")):
        if rank in os.environ and size in os.environ:
            first = int(os.environ.get("SLURM_ARRAY_TASK_MIN", 0)) if rank.startswith("S") else 0
            shard, num_shards = int(os.environ[rank]) - first, int(os.environ[size])
            if not 0 <= shard < num_shards:
                raise ChoiceError(f"{rank}={os.environ[rank]} is not below {size}={num_shards}")
            return shard, num_shards
    return 0, 1
