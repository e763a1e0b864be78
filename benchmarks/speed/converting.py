"""`rela convert` against FFCV's own writer, as many workers as cores.

Either runs in a process of its own, imports not counted: FFCV's waits for ever when a worker fails.
"""

import functools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks.speed.comparison import Comparison, compare
from benchmarks.speed.photos import write_photos

NUM_IMAGES, HEIGHT, WIDTH = 3000, 375, 500
MAX_SIDE = 256
_TIMEOUT_SECONDS = 300.0


def run(rounds: int, scratch: Path) -> list[Comparison]:
    """Images per second, files' bytes kept and files' pixels encoded again."""
    folder = write_photos(scratch / "converting" / "photos", NUM_IMAGES, HEIGHT, WIDTH)
    kept = (
        f"convert, {NUM_IMAGES:,} JPEGs of {HEIGHT}×{WIDTH} pixels: ours checks and digests them and "
        "stores their bytes, FFCV encodes them again"
    )
    shrunk = f"the same, longer side at most {MAX_SIDE} pixels: both shrink and encode"
    results = []
    for title, max_side in ((kept, None), (shrunk, MAX_SIDE)):
        sides = {
            name: functools.partial(images_per_second, side, folder, max_side)
            for name, side in (("rela convert", "rela"), ("FFCV DatasetWriter", "ffcv"))
        }
        results.append(
            compare(title, "images/s", sides, rounds, targets={"FFCV DatasetWriter": 0.9})
        )
    return results


def images_per_second(side: str, folder: Path, max_side: int | None) -> float:
    """One conversion; raises TimeoutExpired if it hangs."""
    output = folder.with_name("output")
    shutil.rmtree(output, ignore_errors=True)
    cores = len(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "benchmarks.speed.converters", side, folder, output, cores]
    command += [] if max_side is None else [max_side]
    child = subprocess.Popen(
        [str(word) for word in command], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        printed, _ = child.communicate(timeout=_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # its workers too
        raise
    finally:
        shutil.rmtree(output, ignore_errors=True)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, child.args)
    return NUM_IMAGES / float(printed.splitlines()[-1])
