"""How much memory a stage needs at most, in a process of its own, as the number of rows grows.

`python -m benchmarks.speed.memory embed|projection NUM_ROWS FOLDER` prints the largest resident set in
bytes, pages of memory-mapped files included.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.speed.comparison import Figure

WIDTH = 2048
TARGET_WIDTH = 512
ROWS = {"embed": (20_000, 100_000), "projection": (100_000, 1_000_000)}
_SIDE = 8  # pixels of the images to embed
_NUM_PICTURES = 100


def run(rounds: int, scratch: Path) -> list[Figure]:
    """Once each, whatever `rounds` says: what a process needs hardly differs from run to run."""
    return [
        figure
        for stage, (few, many) in ROWS.items()
        for figure in growth(stage, few, many, scratch / "memory")
    ]


def growth(stage: str, few: int, many: int, scratch: Path) -> list[Figure]:
    """The largest resident set for both numbers of rows, and the second's share of the first."""
    found = [resident_bytes(stage, number, scratch / str(number)) for number in (few, many)]
    figures = [
        Figure(f"{stage}, {number:,} rows of {WIDTH:,}: largest resident set", "MB", [size / 1e6])
        for number, size in zip((few, many), found, strict=True)
    ]
    title = f"{stage}, {many:,} rows against {few:,}: largest resident set"
    return [*figures, Figure(title, "times", [found[1] / found[0]], limit=1.1)]


def resident_bytes(stage: str, num_rows: int, folder: Path) -> int:
    """Run one stage in another process; its folder is removed afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "benchmarks.speed.memory", stage, num_rows, folder]
    try:
        return int(subprocess.check_output([str(word) for word in command]).split()[-1])
    finally:
        shutil.rmtree(folder)


def embed_rows(num_rows: int, folder: Path) -> None:
    """`rela embed` of tiny images by an untrained ResNet-50."""
    from rela.priors import PriorRequest
    from rela.stages.embed.embed import embed
    from rela.stages.workspace.workspace import Workspace

    workspace, pictures = folder / "workspace", _write_pictures(num_rows, folder / "images")
    command = [sys.executable, "-m", "rela", "--workspace", workspace, "convert", pictures]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    request = PriorRequest("random:resnet50", image_size=_SIDE)
    embed(Workspace(workspace), Workspace(workspace).dataset(), request)


def project_rows(num_rows: int, folder: Path) -> None:
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


def _write_pictures(count: int, folder: Path) -> Path:
    """Class folders of links to a few pictures, a class for each picture."""
    import numpy as np
    from PIL import Image

    for picture in range(_NUM_PICTURES):
        pixels = np.random.default_rng(picture).integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
        class_folder = folder / f"class{picture:03}"
        class_folder.mkdir(parents=True)
        Image.fromarray(pixels).save(class_folder / "0.png")
        for number in range(1, count // _NUM_PICTURES):
            os.link(class_folder / "0.png", class_folder / f"{number}.png")
    return folder


def _largest_resident_bytes() -> int:
    """Of this program alone; what getrusage says includes the parent from before it started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    {"embed": embed_rows, "projection": project_rows}[sys.argv[1]](
        int(sys.argv[2]), Path(sys.argv[3])
    )
    print(_largest_resident_bytes())
