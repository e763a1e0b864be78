"""What one waits for before anything happens: whole processes, from their start to their end."""

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.speed.betons import beton_of
from benchmarks.speed.comparison import Figure
from benchmarks.speed.ffcv_views import COLOURS
from benchmarks.speed.photos import write_photos

_ROOT = Path(__file__).resolve().parents[2]
_HANG_SECONDS = 300.0
_NUM_IMAGES = 128


def run(rounds: int, scratch: Path) -> list[Figure]:
    photos = beton_of(write_photos(scratch / "startup-375x500", _NUM_IMAGES, 375, 500), "jpg")
    small_folder = write_photos(scratch / "startup-32x32", _NUM_IMAGES, 32, 32, ".png")
    small = beton_of(small_folder, "raw")
    workspace = str(scratch / "startup-workspace")
    rela = ["rela", "--workspace", workspace]
    embed = [*rela, "embed", "--prior", "random:resnet18"]
    _seconds(*rela, "convert", str(small_folder))
    first, ffcv = "benchmarks.speed.first_batch", "benchmarks.speed.ffcv_views"
    ours = {
        "First batch, 224 px from JPEG": ([first, str(photos.path), "224"], 3.0),
        "First batch, 32 px from raw": ([first, str(small.path), "32"], 3.0),
        "rela embed, a cache hit": (embed, 1.0),
        "rela --help": (["rela", "--help"], 0.3),
    }
    for command, _ in ours.values():
        _seconds(*command)  # compiles, embeds
    seconds: dict[str, list[float]] = {title: [] for title in ours}
    for _ in range(rounds):
        for title, (command, _) in ours.items():
            seconds[title].append(_seconds(*command))
    return [
        *(Figure(title, "s", seconds[title], limit) for title, (_, limit) in ours.items()),
        *(
            Figure(
                f"For comparison, once: first batch of FFCV, {COLOURS[colour]}",
                "s",
                [_seconds(ffcv, str(photos.path), "224", colour)],
            )
            for colour in ("none", "own")
        ),
    ]


def _seconds(*command: str) -> float:
    """How long `python -m COMMAND` runs; raises CalledProcessError if it fails."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", *command],
        cwd=_ROOT,
        check=True,
        timeout=_HANG_SECONDS,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start
