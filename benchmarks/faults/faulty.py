"""The command line with a fault in it: RELA_FAULT=KIND:RANK:BATCH breaks that process at that batch.

Kinds: `raise` and `loader` (an exception where batches are asked for, and in a thread that makes them),
`exit` (status 0, without a word), `kill`, `stop` (SIGKILL and SIGSTOP to itself), `slow` (nothing breaks;
every batch takes a while, on every process). Batches are counted from 1. `log:PATH:0` breaks nothing
either: every optimizer step's number and samples are written to PATH.RANK.
"""

import itertools
import json
import os
import signal
import sys
import time
from typing import Any

from rela import cli
from rela.distributed.ranks import current_ranks
from rela.stages.train import processes

_SLOW_SECONDS = 0.3


def break_at(kind: str, rank: int, batch: int) -> None:
    """Make the loader of process `rank` fail."""
    from rela.data.kernels import samples
    from rela.data.loader import ViewLoader

    if kind != "slow" and current_ranks().rank != rank:
        return
    original, counter = ViewLoader._result, itertools.count(1)
    load_views, calls = samples.load_views, itertools.count(1)

    def result(self: ViewLoader, *arguments: Any) -> Any:
        if kind == "slow":
            time.sleep(_SLOW_SECONDS)
        elif next(counter) == batch:
            if kind == "raise":
                raise ValueError("a fault on purpose")
            if kind == "exit":
                os._exit(0)
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[kind])
        return original(self, *arguments)

    def load(*arguments: Any) -> None:
        if next(calls) >= batch:
            raise ValueError("a fault on purpose, in a thread")
        load_views(*arguments)

    if kind == "loader":
        samples.load_views = load
    else:
        ViewLoader._result = result  # type: ignore[method-assign]


def write_samples(path: str) -> None:
    """A line [step, samples] for every optimizer step that is done, and 0.1 s for each."""
    from rela.training.two_stage import TwoStage

    on_train_batch_end = TwoStage.on_train_batch_end

    def record(self: TwoStage, outputs: Any, batch: Any, batch_idx: int) -> None:
        on_train_batch_end(self, outputs, batch, batch_idx)
        time.sleep(0.1)
        with open(f"{path}.{current_ranks().rank}", "a") as file:
            file.write(json.dumps([self.trainer.global_step, batch["index"].tolist()]) + "\n")

    TwoStage.on_train_batch_end = record  # type: ignore[method-assign]


if __name__ == "__main__":
    # those that this one starts are faulty, too
    processes.PROGRAM = (sys.executable, "-m", "benchmarks.faults.faulty")
    if fault := os.environ.get("RELA_FAULT"):
        kind, where, batch = fault.split(":")
        if kind == "log":
            write_samples(where)
        elif current_ranks().world_size > 1:
            break_at(kind, int(where), int(batch))
    sys.exit(cli.main())
