"""One bit flipped anywhere in what is kept: found before anything is made of it."""

import mmap
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.faults import Tally
from benchmarks.faults.stages import each_stage
from rela.errors import RelaError
from rela.pipeline.artifact import find_artifacts, open_artifact
from rela.pipeline.errors import PipelineError
from rela.pipeline.parts import PartStore
from rela.priors import PriorRequest
from rela.priors.earlier_run import BACKBONE_FILE
from rela.representations.matrix_file import open_matrix
from rela.stages.embed.arithmetic import Arithmetic
from rela.stages.embed.reuse import KnownRows
from rela.stages.priors.identify import identify
from rela.stages.train.targets import TARGETS_FILE
from rela.stages.workspace.representations import REPRESENTATIONS_FILE, Representations
from rela.stages.workspace.schema import as_type
from rela.stages.workspace.workspace import Workspace
from rela.training.checkpoints import newest_checkpoint

_TRIALS = 400
_PART_BYTES = 200_000


def integrity(trials: int, scratch: Path) -> Iterator[Tally]:
    """Every kind of file that is kept, with what reads it: an error, or something false, if it is damaged."""
    list(each_stage(scratch, ()))
    space = Workspace(scratch / "after-eval")
    dataset, run = space.dataset("digits"), space.run()
    targets = find_artifacts(space.targets_dir)[0]
    representations = next(
        each for each in space.representations(dataset.images_sha256()) if each.content.run is None
    )
    (maps,) = space.maps(dataset.images_sha256())
    store = PartStore(scratch / "parts", 1)
    store.write(0, random.Random(0).randbytes(_PART_BYTES))
    newest = newest_checkpoint(run.path / "checkpoints")
    assert newest is not None

    def finds_newest() -> bool:
        found = newest_checkpoint(run.path / "checkpoints")
        return found is not None and found[0] == newest[0]

    kept: dict[str, tuple[Path, Callable[[], object]]] = {
        "part": (store.directory / "part-000000", lambda: store.read(0)),
        "representations": (
            representations.path / REPRESENTATIONS_FILE,
            lambda: representations.sound_file(REPRESENTATIONS_FILE),
        ),
        "maps": (
            maps.path / REPRESENTATIONS_FILE,
            lambda: maps.sound_file(REPRESENTATIONS_FILE),
        ),
        "representations, for the rows of another data set": (
            representations.path / REPRESENTATIONS_FILE,
            lambda: _rows_taken_from(representations),
        ),
        "targets": (targets.path / TARGETS_FILE, lambda: targets.sound_file(TARGETS_FILE)),
        "manifest": (targets.path / "manifest.json", lambda: open_artifact(targets.path)),
        "checkpoint": (newest[0], finds_newest),
        "record of a checkpoint": (newest[0].with_suffix(".json"), finds_newest),
        "backbone of a run": (
            run.path / BACKBONE_FILE,
            lambda: identify(space, PriorRequest(f"run:{run.name}")).load(),
        ),
        "beton, by `rela cache verify`": (
            dataset.path / "train.beton", lambda: dataset.verify() is None,
        ),
    }  # fmt: skip
    for what, (path, read) in kept.items():
        assert _is_read(read), f"{what}: refused without any damage"
        tally = Tally(f"{what}: one bit flipped")
        draw, size = random.Random(tally.what), path.stat().st_size
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as content:
            for _ in range(trials or _TRIALS):
                position, bit = draw.randrange(size), 1 << draw.randrange(8)
                content[position] ^= bit
                problem = f"bit {bit} of byte {position:,} of {size:,}" if _is_read(read) else ""
                tally.count(problem)
                content[position] ^= bit
        yield tally


def _is_read(read: Callable[[], object]) -> bool:
    try:
        return bool(read())
    except (PipelineError, RelaError):
        return False


def _rows_taken_from(representations: Representations) -> bool:
    """Whether an embedding of the same images by the same prior would take its rows."""
    matrix = open_matrix(representations.file, verify=False)
    assert matrix.images is not None
    here = as_type(representations.arithmetic, Arithmetic)
    known = KnownRows(
        np.asarray(matrix.images), None, *matrix.values.shape[1:], representations.dtype
    )
    with known.take_from([representations], here, lambda line: None):
        return bool(known.donors)
