"""The number of processes changes nothing: training that goes on with another, embedding by several."""

import hashlib
import json
import shutil
import sys
import time
from pathlib import Path

from benchmarks.faults.rank_jobs import (
    SMALL_RUN,
    STARTS,
    RankJob,
    losses_of,
    prepared_workspace,
    rela,
    write_pictures,
)
from benchmarks.faults.tally import Tally

TOLERANCE = 2e-2
_EPOCHS = 6
_LIMIT_SECONDS = 300.0
_RUNS = 1


def run(trials: int, scratch: Path) -> list[Tally]:
    """`trials` runs, each of its own seed, told to stop in their epochs 2 and 4."""
    workspace = prepared_workspace(scratch)
    statuses = Tally("SIGTERM to a training on 2, then 1 process: status 75, and the next goes on")
    samples = Tally(
        "on 2, 1, 2 processes: the samples of an uninterrupted run, none lost or repeated"
    )
    losses = Tally(f"on 2, 1, 2 processes: its losses, within {TOLERANCE:g}")
    for number in range(trials or _RUNS):
        _stop_twice(workspace, int(time.time()) % 1_000_000 + number, statuses, samples, losses)
    return [statuses, samples, losses, _embedded(scratch)]


def _embedded(scratch: Path) -> Tally:
    """2,500 images are three parts; torchrun's processes and shards by hand run at the same time."""
    tally = Tally(
        "embedded by 2 processes of torchrun, or 3 shards at once: the bytes of one process"
    )
    pictures = write_pictures(scratch / "many", count=2500)
    prior = ["embed", "--prior", "random:squeezenet1_1", "--image-size", "32", "--shard"]
    digests = {}
    for how, num_jobs in (("alone", 1), ("torchrun", 1), ("shards", 3)):
        workspace = scratch / f"embedded-{how}"
        shutil.rmtree(workspace, ignore_errors=True)
        rela(workspace, "convert", str(pictures))
        if how == "torchrun":
            jobs = [RankJob.start(workspace, how, prior[:-1])]
        else:
            shards = [f"{number}/{num_jobs}" for number in range(num_jobs)]
            jobs = [RankJob.start(workspace, "plain", [*prior, shard]) for shard in shards]
        statuses = [job.wait(_LIMIT_SECONDS) for job in jobs]
        found = sorted(workspace.glob("representations/*/representations.h5"))
        digests[how] = [hashlib.sha256(path.read_bytes()).hexdigest() for path in found]
        good = not any(statuses) and len(found) == 1 and digests[how] == digests["alone"]
        tally.count("" if good else f"{how}: {statuses}, {digests}, {jobs[0].said()[-300:]}")
    return tally


def _stop_twice(workspace: Path, seed: int, statuses: Tally, samples: Tally, losses: Tally) -> None:
    arguments = [
        # a model without dropout, whose masks are every process's own; plain SGD at a small rate:
        # larger steps of so small a batch make rounding grow tenfold and more at every step
        "train", *SMALL_RUN, "--model", "resnet18", "--optimizer", "sgd", "--lr", "0.0005",
        "--batch-size", "16", "--epochs", str(_EPOCHS), "--seed", str(seed),
    ]  # fmt: skip
    name = f"sizes{seed}"
    logs = []
    stops = [(STARTS[0], "epoch 2/"), ("one process", "epoch 4/"), (STARTS[0], "")]
    for number, (how, words) in enumerate(stops):
        log = workspace.parent / f"samples-{seed}-{number}"
        logs.append(log)
        job = RankJob.start(workspace, how, [*arguments, "--name", name], f"log:{log}:0")
        if words:
            job.wait_for(words, _LIMIT_SECONDS)
            job.process.terminate()
        status, expected = job.wait(_LIMIT_SECONDS), 75 if words else 0
        good = status == expected
        statuses.count("" if good else f"seed {seed}, {how}: status {status}: {job.said()[-300:]}")
    whole = workspace.parent / f"samples-{seed}-whole"
    job = RankJob.start(
        workspace, "one process", [*arguments, "--name", f"{name}-whole"], f"log:{whole}:0"
    )
    assert job.wait(_LIMIT_SECONDS) == 0, job.said()
    found, expected_samples = _trained_on(logs), _trained_on([whole])
    same = found == expected_samples
    samples.count("" if same else f"seed {seed}: {len(found)} and {len(expected_samples)} batches")
    one, other = (losses_of(workspace / "runs" / n) for n in (name, f"{name}-whole"))
    difference = max(abs(a - b) for a, b in zip(one, other, strict=True))
    print(f"  seed {seed}: losses differ by {difference:.1e} at most", file=sys.stderr)
    losses.count("" if difference < TOLERANCE else f"seed {seed}: {difference}")


def _trained_on(logs: list[Path]) -> list[list[int]]:
    """The samples of every optimizer step, in order: those of both processes joined."""
    steps: dict[int, dict[int, list[int]]] = {}
    for log in logs:
        for path in sorted(log.parent.glob(f"{log.name}.*")):
            rank = int(path.suffix[1:])
            for line in path.read_text().splitlines():
                step, rows = json.loads(line)
                assert rank not in steps.get(step, {}), f"step {step} was learned twice"
                steps.setdefault(step, {})[rank] = rows
    assert sorted(steps) == list(range(1, len(steps) + 1))
    return [[row for rank in sorted(steps[s]) for row in steps[s][rank]] for s in sorted(steps)]
