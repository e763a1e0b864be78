"""What several processes of one job share: who prepares, who speaks, and which run it is."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rela.ranks import current_ranks

# lets the other processes go on with the run of that name; an empty one: there is nothing to do
Teller = Callable[[str], None]


def is_another_rank() -> bool:
    """Whether this process was started beside a first one, which locks, speaks and publishes."""
    return current_ranks().rank > 0


def silent(message: str) -> None:
    """What the first process says, the others need not repeat."""


def num_processes() -> int:
    """How many were started beside each other by torchrun or SLURM; 1 for a plain call."""
    return current_ranks().world_size


def prepared_run(timeout_seconds: float) -> str:
    """Wait for the first process to prepare a run; ends this process if there is nothing to do."""
    from rela.meeting import Meeting

    run = Meeting(current_ranks(), timeout_seconds).hear()
    if not run:
        sys.exit(0)
    return run


@contextmanager
def first_of_several(timeout_seconds: float) -> Iterator[Teller]:
    """Around all that the first process prepares: however that ends, the others need not wait."""
    ranks = current_ranks()
    if ranks.world_size == 1:
        yield silent
        return
    from rela.meeting import Meeting

    meeting = Meeting(ranks, timeout_seconds)
    try:
        yield meeting.tell
    finally:
        meeting.tell("")
