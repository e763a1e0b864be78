"""What the first process of a training prepares, the others wait for: a word passed on, once."""

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


class Meeting:
    """Where the processes of one job meet before they train; torch's rendezvous by MASTER_ADDR.

    Waiting lasts as long as the first process prepares (hours, if it embeds), and ends with
    LostRankError when it dies or does not answer for two minutes. Raises LostRankError, too, if not
    all processes come within `timeout_seconds`.
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

        def meet() -> Any:
            return next(rendezvous("env://", ranks.rank, ranks.world_size, timeout=timeout))[0]

        try:
            self._store = _beside(meet)
        except dist.DistError as error:
            raise _lost(error) from error
        self.is_over = False

    def tell(self, word: str) -> None:
        """Let the others go on with `word`; only the first call counts."""
        if not self.is_over:
            self.is_over = True
            self._store.set(_KEY, word)

    def hear(self) -> str:
        """Wait for the word; raises LostRankError once the first process does not answer any more."""
        heard: queue.Queue[str | Exception | None] = queue.Queue()
        # torch waits without end for a process that is stopped, or behind a cut cable
        threading.Thread(target=self._listen, args=(heard,), daemon=True).start()
        while True:
            try:
                word = heard.get(timeout=2 * self._patience.total_seconds())
            except queue.Empty as error:
                raise _lost(TimeoutError("the first process does not answer")) from error
            if isinstance(word, Exception):
                raise _lost(word) from word
            if word is not None:
                return word

    def _listen(self, heard: "queue.Queue[str | Exception | None]") -> None:
        """Put the word, or what went wrong; None now and then while the first process prepares."""
        import torch.distributed as dist

        while True:
            try:
                self._store.wait([_KEY], self._patience)
                heard.put(str(self._store.get(_KEY).decode()))
                return
            except dist.DistNetworkError as error:
                heard.put(error)
                return
            except dist.DistStoreError:
                heard.put(None)


def _beside(wait: Callable[[], Any]) -> Any:
    """wait() in a thread: torch waits without looking at signals, but whoever waits for a queue sees them."""
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
        f"another process of this training did not come or ended before it began ({reason}); start "
        "all of them again"
    )
