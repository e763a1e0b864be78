"""Training in several processes: start them, let rank 0 prepare the run, report failures."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import Signals

from rela.distributed.ranks import LAUNCHER_VARIABLE, current_ranks, free_port
from rela.errors import LostRankError, RelaError
from rela.pipeline.processes import ProcessExit, run_processes
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

STARTED_VARIABLE = "RELA_STARTED"  # seconds since the epoch
# -P: ignore the working directory, where a user may have a rela or a cli.py
PROGRAM = (sys.executable, "-P", "-m", "rela")
_GRACE_SECONDS = 30.0
_TRY_AGAIN = LostRankError.exit_status


class RankFailedError(RelaError):
    """A process of the training failed; it has printed its own error."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def train_on_several(
    workspace: Workspace, run: str, settings: TrainSettings, num_processes: int, started: float
) -> None:
    """Train `run` in `num_processes` processes on this machine until all have ended.

    `started`: time.time() at which the job began. Raises RankFailedError with the process that failed
    and how.
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
        "PYTHONPATH": os.pathsep.join(sys.path),  # the same rela as in this process
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
    exits = run_processes(command, environments, _GRACE_SECONDS)
    failure = _failure(exits, run)
    if failure is not None:
        raise failure


def _failure(exits: list[ProcessExit], run: str) -> RankFailedError | None:
    """The exit that explains the failure best: an error, then a signal, then the loss of another rank."""
    own = [(i, e.status) for i, e in enumerate(exits) if e.status and not e.was_killed]
    if not any(e.status for e in exits):
        return None
    number, status = min(own, key=lambda found: (found[1] == _TRY_AGAIN, found[1] < 0))
    of = f"process {number + 1} of {len(exits)}"
    again = f"resume with `rela train --resume --name {run}`"
    if status < 0:
        name = Signals(-status).name
        memory = " (out of memory?)" if name == "SIGKILL" else ""
        return RankFailedError(f"{of} was killed by {name}{memory}; {again}", _TRY_AGAIN)
    stuck = [i for i, e in enumerate(exits) if e.was_killed]
    if stuck and status == _TRY_AGAIN:
        names = " and ".join(str(i + 1) for i in stuck)
        return RankFailedError(
            f"process {names} of {len(exits)} stopped responding; {again}", _TRY_AGAIN
        )
    early = [i for i, e in enumerate(exits) if e.status == 0]
    if status == _TRY_AGAIN and early:
        return RankFailedError(
            f"process {early[0] + 1} of {len(exits)} ended before the training did; {again}",
            _TRY_AGAIN,
        )
    return RankFailedError(f"{of} ended with status {status}, see above; {again}", status)


# announces the name of the run to the other ranks; an empty name: there is nothing to do
Announce = Callable[[str], None]


def is_another_rank() -> bool:
    """Whether this is not rank 0, the one that locks, prints and publishes."""
    return current_ranks().rank > 0


def silent(message: str) -> None:
    """Print nothing: rank 0 prints for all."""


def prepared_run(timeout_seconds: float) -> str:
    """Wait until rank 0 has prepared a run; return its name, or exit if there is nothing to do."""
    from rela.distributed.rendezvous import Rendezvous

    run = Rendezvous(current_ranks(), timeout_seconds).wait()
    if not run:
        sys.exit(0)
    return run


@contextmanager
def first_of_several(timeout_seconds: float) -> Iterator[Announce]:
    """Yield rank 0's Announce for the body; when the body ends, the other ranks stop waiting."""
    ranks = current_ranks()
    if ranks.world_size == 1:
        yield silent
        return
    from rela.distributed.rendezvous import Rendezvous

    rendezvous = Rendezvous(ranks, timeout_seconds)
    try:
        yield rendezvous.announce
    finally:
        rendezvous.announce("")
