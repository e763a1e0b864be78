"""What one waits for before anything happens: whole processes, from their start to their end."""

import functools
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.speed.comparison import Figure, compare
from benchmarks.speed.ffcv_views import COLOURS
from benchmarks.speed.photos import beton_of, write_photos
from rela.training.run_directory import PROGRESS_FILE

_ROOT = Path(__file__).resolve().parents[2]
_HANG_SECONDS = 300.0
_NUM_IMAGES = 128
_EMBED = "rela embed, to its end: 118 images at 32 px, nothing cached"


def run(rounds: int, scratch: Path) -> list[Figure]:
    photos = beton_of(write_photos(scratch / "startup-375x500", _NUM_IMAGES, 375, 500), "jpg")
    small_folder = write_photos(scratch / "startup-32x32", _NUM_IMAGES, 32, 32, ".png")
    small = beton_of(small_folder, "raw")
    rela = ("rela", "--workspace", scratch / "startup-workspace")
    _seconds(*rela, "convert", small_folder)
    first = "benchmarks.speed.first_batch"
    commands = {
        "First batch, 224 px from JPEG": ((first, "rela", photos.path, 224), 3.0),
        "First batch, 32 px from raw": ((first, "rela", small.path, 32), 3.0),
        "rela embed, a cache hit": ((*rela, "embed", "--prior", "random:resnet18"), 1.0),
        "rela --help": (("rela", "--help"), 0.3),
    }
    sides = {
        title: functools.partial(_seconds, *command) for title, (command, _) in commands.items()
    }
    sides["rela train, to the end of its first step"] = functools.partial(
        _seconds_to_first_step, scratch / "startup-workspace"
    )
    sides[_EMBED] = functools.partial(_seconds_of_an_embedding, scratch / "startup-workspace")
    commands["rela train, to the end of its first step"] = ((), 5.0)
    commands[_EMBED] = ((), 2.5)
    seconds = compare("", "s", sides, rounds).rates  # after a first time, which compiles and embeds
    ours = [Figure(title, "s", seconds[title], limit) for title, (_, limit) in commands.items()]
    theirs = "For comparison, once: first batch of FFCV, "
    return ours + [
        Figure(theirs + COLOURS[colour], "s", [_seconds(first, colour, photos.path, 224)])
        for colour in ("none", "own")
    ]


def _seconds_to_first_step(workspace: Path) -> float:
    """From the start of the process; a small network, so that this is not the time of the step itself."""
    run = workspace / "runs" / "first-step"
    words = [
        "train",
        "--prior",
        "random:resnet18",
        "--model",
        "mobilenet_v3_small",
        "--batch-size",
        "64",
    ]
    words += ["--epochs", "100", "--name", run.name]
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "rela", "--workspace", workspace, *words],
        cwd=_ROOT,
        stdout=subprocess.DEVNULL,
    )
    try:
        while not (run / PROGRESS_FILE).exists():  # written after the first step
            if process.poll() is not None or time.perf_counter() - start > _HANG_SECONDS:
                raise RuntimeError("rela train came to no step")
            time.sleep(0.01)
        return time.perf_counter() - start
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(run, ignore_errors=True)


def _seconds_of_an_embedding(workspace: Path) -> float:
    """By a small prior of another size than elsewhere here; of so few images, nearly all is the start."""
    try:
        return _seconds(
            "rela", "--workspace", workspace, "embed", "--prior", "random:shufflenet_v2_x0_5"
        )
    finally:
        for made in (workspace / "representations").glob("*shufflenet*"):
            shutil.rmtree(made)


def _seconds(*command: object) -> float:
    """How long `python -m COMMAND` runs; raises CalledProcessError if it fails."""
    words = [sys.executable, "-m", *map(str, command)]
    start = time.perf_counter()
    subprocess.run(words, cwd=_ROOT, check=True, timeout=_HANG_SECONDS, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start
