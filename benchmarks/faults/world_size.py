"""Training on 2, 1, 2 processes: told to stop twice, it sees the samples and losses of a run in one go."""

import json
import sys
import time
from pathlib import Path

from benchmarks.faults.rank_jobs import SMALL_RUN, STARTS, RankJob, losses_of, prepared_workspace
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
    return [statuses, samples, losses]


def _stop_twice(workspace: Path, seed: int, statuses: Tally, samples: Tally, losses: Tally) -> None:
    arguments = [
        "train", *SMALL_RUN, "--optimizer", "sgd", "--lr", "0.01", "--epochs", str(_EPOCHS), "--seed",
        str(seed),
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
