"""What one waits for before anything happens: whole processes, from their start to their end."""

import functools
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.speed.comparison import Figure, compare
from benchmarks.speed.ffcv_views import COLOURS
from benchmarks.speed.photos import beton_of, write_photos

_ROOT = Path(__file__).resolve().parents[2]
_HANG_SECONDS = 300.0
_NUM_IMAGES = 128


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
    seconds = compare("", "s", sides, rounds).rates  # after a first time, which compiles and embeds
    ours = [Figure(title, "s", seconds[title], limit) for title, (_, limit) in commands.items()]
    theirs = "For comparison, once: first batch of FFCV, "
    return ours + [
        Figure(theirs + COLOURS[colour], "s", [_seconds(first, colour, photos.path, 224)])
        for colour in ("none", "own")
    ]


def _seconds(*command: object) -> float:
    """How long `python -m COMMAND` runs; raises CalledProcessError if it fails."""
    words = [sys.executable, "-m", *map(str, command)]
    start = time.perf_counter()
    subprocess.run(words, cwd=_ROOT, check=True, timeout=_HANG_SECONDS, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start
