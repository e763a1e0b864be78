"""Several processes of one training: start them, decide which prepares, report how they end."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import Signals

from rela.distributed.ranks import LAUNCHER_VARIABLE, current_ranks, free_port
from rela.errors import LostRankError, RelaError
from rela.pipeline.processes import Ending, run_together
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

STARTED_VARIABLE = "RELA_STARTED"  # seconds since the epoch
# -P: not from the working directory, where a user may have a folder of any name
PROGRAM = (sys.executable, "-P", "-m", "rela")
_GRACE_SECONDS = 30.0
_TRY_AGAIN = LostRankError.exit_status


class RankFailedError(RelaError):
    """A process of the training failed, and has said why."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def train_on_several(
    workspace: Workspace, run: str, settings: TrainSettings, num_processes: int, started: float
) -> None:
    """Go on with `run` in `num_processes` processes beside each other, until all have ended.

    `started`: when the job began, as time.time() tells it. Raises RankFailedError naming the process
    that failed and how.
    """
    command = [
        *PROGRAM, "--workspace", str(workspace.root), "train", "--resume",
        "--name", run, "--devices", settings.devices,
        "--logger", settings.logger,
        "--checkpoint-minutes", str(settings.checkpoint_minutes),
        "--rank-timeout", str(settings.rank_timeout),
    ]  # fmt: skip
    common = {
        **{k: v for k, v in os.environ.items() if not k.startswith("TORCHELASTIC_")},
        "PYTHONPATH": os.pathsep.join(sys.path),  # the very rela that runs here
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        LAUNCHER_VARIABLE: str(os.getpid()),
        STARTED_VARIABLE: str(started),
    }
    environments = [
        {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_processes)
    ]
    endings = run_together(command, environments, _GRACE_SECONDS)
    failure = _failure(endings, run)
    if failure is not None:
        raise failure


def _failure(endings: list[Ending], run: str) -> RankFailedError | None:
    """The most telling of several ends: its own error, then a signal, then having lost another."""
    own = [(i, e.status) for i, e in enumerate(endings) if e.status and not e.was_stopped]
    if not any(ending.status for ending in endings):
        return None
    number, status = min(own, key=lambda found: (found[1] == _TRY_AGAIN, found[1] < 0))
    of = f"process {number + 1} of {len(endings)}"
    again = f"go on with `rela train --resume --name {run}`"
    if status < 0:
        name = Signals(-status).name
        memory = " (out of memory?)" if name == "SIGKILL" else ""
        return RankFailedError(f"{of} was killed by {name}{memory}; {again}", _TRY_AGAIN)
    quiet = [i for i, e in enumerate(endings) if e.was_stopped]
    if quiet and status == _TRY_AGAIN:
        names = " and ".join(str(i + 1) for i in quiet)
        return RankFailedError(
            f"process {names} of {len(endings)} did not answer any more; {again}", _TRY_AGAIN
        )
    early = [i for i, e in enumerate(endings) if e.status == 0]
    if status == _TRY_AGAIN and early:
        return RankFailedError(
            f"process {early[0] + 1} of {len(endings)} ended before the training did; {again}",
            _TRY_AGAIN,
        )
    return RankFailedError(f"{of} ended with status {status}, as said above; {again}", status)


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
    from rela.distributed.rendezvous import Meeting

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
    from rela.distributed.rendezvous import Meeting

    meeting = Meeting(ranks, timeout_seconds)
    try:
        yield meeting.tell
    finally:
        meeting.tell("")
