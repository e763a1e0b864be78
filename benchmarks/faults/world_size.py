"""The number of processes changes nothing: training resumed with another, embedding by several."""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults import Tally
from benchmarks.faults.ranks import (
    LIMIT_SECONDS,
    STARTS,
    losses_of,
    prepared_workspace,
    rela,
    start,
    training,
)
from benchmarks.faults.workspaces import write_digits

TOLERANCE = 2e-2
_EPOCHS = 6
_RUNS = 1
_OPTIONS = (
    # a model without dropout, whose masks are every process's own; plain SGD at a small rate:
    # larger steps of so small a batch make rounding grow tenfold and more at every step
    "--model", "resnet18", "--optimizer", "sgd", "--lr", 0.0005, "--batch-size", 16,
)  # fmt: skip


def world_size(trials: int, scratch: Path) -> Iterator[Tally]:
    """`trials` runs, each of its own seed, told to stop in their epochs 2 and 4."""
    workspace = prepared_workspace(scratch)
    statuses, samples, losses = tallies = (
        Tally("SIGTERM to a training on 2, then 1 process: status 75, and the next goes on"),
        Tally("on 2, 1, 2 processes: the samples of an uninterrupted run, none lost or repeated"),
        Tally(f"on 2, 1, 2 processes: its losses, within {TOLERANCE:g}"),
    )
    first_seed = int(time.time()) % 1_000_000
    for seed in range(first_seed, first_seed + (trials or _RUNS)):
        _stop_twice(workspace, seed, statuses, samples, losses)
    yield from tallies
    yield _embedded(scratch)


def _stop_twice(workspace: Path, seed: int, statuses: Tally, samples: Tally, losses: Tally) -> None:
    name, train = training(seed, _EPOCHS, *_OPTIONS)
    log = workspace.parent / f"samples-{seed}"
    one = ("--devices", 1)
    for how, words in ((STARTS[0], "epoch 2/"), ("", "epoch 4/"), (STARTS[0], "")):
        job = start(workspace, how, *train, *(() if how else one), fault=f"log:{log}:0")
        if words:
            job.wait_for(words, LIMIT_SECONDS)
            job.terminate()
        expected = 75 if words else 0
        good = job.wait(LIMIT_SECONDS) == expected
        statuses.count("" if good else f"seed {seed}, {how}: {job.status}: {job.said()[-300:]}")
    whole = workspace.parent / f"samples-{seed}-whole"
    job = start(workspace, "", *train[:-1], f"{name}-whole", *one, fault=f"log:{whole}:0")
    assert job.wait(LIMIT_SECONDS) == 0, job.said()
    found, expected_samples = _trained_on(log), _trained_on(whole)
    same = found == expected_samples
    samples.count("" if same else f"seed {seed}: {len(found)} and {len(expected_samples)} batches")
    pairs = zip(losses_of(workspace, name), losses_of(workspace, f"{name}-whole"), strict=True)
    difference = max(abs(one - other) for one, other in pairs)
    print(f"  seed {seed}: losses differ by {difference:.1e} at most", file=sys.stderr)
    losses.count("" if difference < TOLERANCE else f"seed {seed}: {difference}")


def _trained_on(log: Path) -> list[list[int]]:
    """The samples of every optimizer step, in order: those of both processes joined."""
    steps: dict[int, dict[int, list[int]]] = {}
    for path in sorted(log.parent.glob(f"{log.name}.*")):
        rank = int(path.suffix[1:])
        for line in path.read_text().splitlines():
            step, rows = json.loads(line)
            assert rank not in steps.get(step, {}), f"step {step} was learned twice"
            steps.setdefault(step, {})[rank] = rows
    assert sorted(steps) == list(range(1, len(steps) + 1))
    return [[row for rank in sorted(steps[s]) for row in steps[s][rank]] for s in sorted(steps)]


def _embedded(scratch: Path) -> Tally:
    """2,500 images are three parts; torchrun's processes and shards by hand run at the same time."""
    what = "embedded by 2 processes of torchrun, or 3 shards at once: the bytes of one process"
    tally, expected = Tally(what), ""
    pictures = write_digits(scratch / "many", 2500)
    embed = ("embed", "--prior", "random:squeezenet1_1", "--image-size", 32)
    for how, shards in (("", ("0/1",)), ("torchrun", ()), ("", ("0/3", "1/3", "2/3"))):
        workspace = scratch / "embedded"
        shutil.rmtree(workspace, ignore_errors=True)
        rela(workspace, "convert", pictures, "--val-fraction", 0)
        each = [("--shard", shard) for shard in shards] or [()]
        jobs = [start(workspace, how, *embed, *options) for options in each]
        statuses = [job.wait(LIMIT_SECONDS) for job in jobs]
        found = workspace.glob("representations/*/representations.h5")
        digest = ", ".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in found)
        expected = expected or digest
        good = not any(statuses) and digest == expected and "," not in digest
        problem = f"{how} {shards}: {statuses}, {digest}, {jobs[0].said()[-300:]}"
        tally.count("" if good else problem)
    return tally
