"""How much memory a stage needs at most, in a process of its own, as the number of rows grows.

That is the largest resident set, pages of memory-mapped files included.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.speed.comparison import Figure
from benchmarks.speed.own_process import in_own_processes
from benchmarks.speed.photos import noise, write_photos

WIDTH = 2048
TARGET_WIDTH = 512
ROWS = {"embed": (20_000, 100_000), "projection": (100_000, 1_000_000)}
_SIDE = 8  # pixels of the images to embed


def run(rounds: int, scratch: Path) -> list[Figure]:
    """Once each, whatever `rounds` says: what a process needs hardly differs from run to run."""
    measures = {"embed": embed_rows, "projection": project_rows}
    figures = []
    for stage, counts in ROWS.items():
        found = []
        for count in counts:
            folder = scratch / "memory"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            with in_own_processes({stage: measures[stage]}, count, folder) as sides:
                found.append(sides[stage]())
            shutil.rmtree(folder)
            title = f"{stage}, {count:,} rows of {WIDTH:,}: largest resident set"
            figures.append(Figure(title, "MB", [found[-1] / 1e6]))
        title = f"{stage}, {counts[1]:,} rows against {counts[0]:,}: largest resident set"
        figures.append(Figure(title, "times", [found[1] / found[0]], limit=1.1))
    return figures


def embed_rows(num_rows: int, folder: Path) -> int:
    """`rela embed` of tiny images by an untrained ResNet-50."""
    from rela.priors import PriorRequest
    from rela.stages.embed.embed import embed
    from rela.stages.workspace.workspace import Workspace

    images = folder.with_name(f"noise-{num_rows}")
    write_photos(images, num_rows, _SIDE, _SIDE, ".png", noise)
    command = [sys.executable, "-m", "rela", "--workspace", folder, "convert", images]
    command += ["--val-fraction", "0"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    workspace = Workspace(folder)
    embed(workspace, workspace.dataset(), PriorRequest("random:resnet50", image_size=_SIDE))
    return _largest_resident_bytes()


def project_rows(num_rows: int, folder: Path) -> int:
    """From the file of representations to the file of targets, as `rela train` makes it."""
    import numpy as np

    from rela.representations.matrix_file import ROWS_PER_PART, open_matrix, write_matrix
    from rela.representations.projection import fit_projection
    from rela.representations.targets import write_targets

    random = np.random.default_rng(0)
    spread = np.arange(1, WIDTH + 1, dtype=np.float32) ** -0.5
    parts = (
        random.standard_normal((min(ROWS_PER_PART, num_rows - start), WIDTH), np.float32) * spread
        for start in range(0, num_rows, ROWS_PER_PART)
    )
    write_matrix(folder / "rows.h5", parts, (num_rows, WIDTH), "float16", {})
    matrix = open_matrix(folder / "rows.h5")
    projection = fit_projection(matrix.values, TARGET_WIDTH)
    write_targets(folder / "targets.h5", matrix.values, projection, {})
    return _largest_resident_bytes()


def _largest_resident_bytes() -> int:
    """Of this program only; what getrusage says includes the parent from before it started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
