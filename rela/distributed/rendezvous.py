"""Rendezvous before a training: rank 0 prepares a run and announces its name to the other ranks."""

import os
import queue
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rela.distributed.ranks import Ranks
from rela.errors import LostRankError

_KEY = "rela-run"
_PATIENCE_SECONDS = 60.0


class Rendezvous:
    """The ranks of one job, connected by torch's rendezvous at MASTER_ADDR.

    Raises LostRankError if not all ranks connect within `timeout_seconds`.
    """

    def __init__(self, ranks: Ranks, timeout_seconds: float) -> None:
        import torch.distributed as dist
        from torch.distributed.rendezvous import rendezvous

        if ranks.by_slurm:
            from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

            environment = SLURMEnvironment(auto_requeue=False)
            os.environ["MASTER_ADDR"] = environment.main_address
            os.environ["MASTER_PORT"] = str(environment.main_port)
        timeout = timedelta(seconds=timeout_seconds)
        self._patience = timedelta(seconds=min(timeout_seconds, _PATIENCE_SECONDS))

        def connect() -> Any:
            return next(rendezvous("env://", ranks.rank, ranks.world_size, timeout=timeout))[0]

        try:
            self._store = _in_thread(connect)
        except dist.DistError as error:
            raise _lost(error) from error
        self._is_announced = False

    def announce(self, run: str) -> None:
        """Send the name of the run to the ranks that wait; later calls have no effect."""
        if not self._is_announced:
            self._is_announced = True
            self._store.set(_KEY, run)

    def wait(self) -> str:
        """Wait until rank 0 announces a run, for hours if it embeds first; return the name.

        Raises LostRankError when rank 0 dies or does not answer for two minutes.
        """
        received: queue.Queue[str | Exception | None] = queue.Queue()
        # torch waits forever for a process that is stopped, or whose network is down
        threading.Thread(target=self._receive, args=(received,), daemon=True).start()
        while True:
            try:
                run = received.get(timeout=2 * self._patience.total_seconds())
            except queue.Empty as error:
                raise _lost(TimeoutError("the first process does not answer")) from error
            if isinstance(run, Exception):
                raise _lost(run) from run
            if run is not None:
                return run

    def _receive(self, received: "queue.Queue[str | Exception | None]") -> None:
        """Put the name or the error; None regularly while rank 0 is alive and prepares."""
        import torch.distributed as dist

        while True:
            try:
                self._store.wait([_KEY], self._patience)
                received.put(str(self._store.get(_KEY).decode()))
                return
            except dist.DistNetworkError as error:
                received.put(error)
                return
            except dist.DistStoreError:
                received.put(None)


def _in_thread(wait: Callable[[], Any]) -> Any:
    """Return wait(), run in a thread: torch ignores signals while it waits, a queue does not."""
    outcome: queue.Queue[tuple[Any, Exception | None]] = queue.Queue()

    def run() -> None:
        try:
            outcome.put((wait(), None))
        except Exception as error:
            outcome.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    result, error = outcome.get()
    if error is not None:
        raise error
    return result


def _lost(error: Exception) -> LostRankError:
    reason = str(error).splitlines()[0]
    return LostRankError(
        f"another process of this training did not connect, or ended before the training began "
        f"({reason}); start all of them again"
    )
