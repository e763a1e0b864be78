"""One bit flipped anywhere in what is kept: found before anything is made of it."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.jobs import Job, import_everything
from benchmarks.faults.staged import stages
from benchmarks.faults.tally import Tally
from benchmarks.faults.workspaces import write_digits
from rela.data.beton.reader import open_beton
from rela.errors import RelaError
from rela.pipeline.artifact import find_artifacts, open_artifact
from rela.pipeline.errors import PipelineError
from rela.pipeline.parts import PartStore
from rela.priors.earlier_run import BACKBONE_FILE
from rela.stages.priors.identify import identify
from rela.stages.train.targets import TARGETS_FILE
from rela.stages.workspace.representations import REPRESENTATIONS_FILE
from rela.stages.workspace.workspace import Workspace
from rela.training.checkpoints import newest_checkpoint

_TRIALS = 400
_LIMIT_SECONDS = 120.0
_PART_BYTES = 200_000


def run(trials: int, scratch: Path) -> list[Tally]:
    import_everything()
    space = Workspace(scratch / "workspace")
    shutil.rmtree(space.root, ignore_errors=True)
    for start in stages(write_digits(scratch / "digits")).values():
        if start(space.root, scratch / "log").wait(_LIMIT_SECONDS):
            raise RuntimeError((scratch / "log").read_text())
    dataset, run = space.dataset(), space.run()
    targets = find_artifacts(space.targets_dir)[0]
    representations = next(each for each in space.representations() if each.run is None)
    store = PartStore(scratch / "parts", 1)
    store.write(0, random.Random(0).randbytes(_PART_BYTES))
    newest = newest_checkpoint(run.path / "checkpoints")
    assert newest is not None

    def refuses(work: Callable[[], object]) -> Callable[[], bool]:
        def is_refused() -> bool:
            try:
                work()
            except (PipelineError, RelaError):
                return True
            return False

        return is_refused

    def is_passed_over() -> bool:
        found = newest_checkpoint(run.path / "checkpoints")
        return found is None or found[0] != newest[0]

    kept = {
        "part": (store.directory / "part-000000", lambda: store.read(0) is None),
        "representations": (
            representations.path / REPRESENTATIONS_FILE,
            refuses(lambda: representations.sound_file(REPRESENTATIONS_FILE)),
        ),
        "targets": (
            targets.path / TARGETS_FILE,
            refuses(lambda: targets.sound_file(TARGETS_FILE)),
        ),
        "manifest": (
            targets.path / "manifest.json",
            refuses(lambda: open_artifact(targets.path)),
        ),
        "checkpoint": (newest[0], is_passed_over),
        "record of a checkpoint": (newest[0].with_suffix(".json"), is_passed_over),
        "backbone of a run": (
            run.path / BACKBONE_FILE,
            refuses(lambda: identify(space, _run_request(run.name)).load()),
        ),
        "beton, by `rela cache verify`": (dataset.path / "train.beton", refuses(dataset.verify)),
    }
    tallies = []
    for what, (path, is_found) in kept.items():
        assert not is_found(), f"{what}: refused without any damage"
        tally = Tally(f"{what}: one bit flipped")
        _flip_bits(path, is_found, tally, trials or _TRIALS)
        tallies.append(tally)
    tallies.append(_beton_never_crashes(dataset.path / "train.beton", scratch, trials or _TRIALS))
    return tallies


def _run_request(name: str) -> object:
    from rela.priors import PriorRequest

    return PriorRequest(f"run:{name}")


def _flip_bits(path: Path, is_found: Callable[[], bool], tally: Tally, trials: int) -> None:
    draw = random.Random(tally.what)
    with open(path, "r+b") as file:
        size = path.stat().st_size
        for _ in range(trials):
            position, bit = draw.randrange(size), 1 << draw.randrange(8)
            _toggle(file, position, bit)
            tally.count("" if is_found() else f"bit {bit} of byte {position:,} of {size:,}")
            _toggle(file, position, bit)


def _toggle(file: object, position: int, bit: int) -> None:
    file.seek(position)  # type: ignore[attr-defined]
    (value,) = file.read(1)  # type: ignore[attr-defined]
    file.seek(position)  # type: ignore[attr-defined]
    file.write(bytes([value ^ bit]))  # type: ignore[attr-defined]
    file.flush()  # type: ignore[attr-defined]


def _beton_never_crashes(path: Path, scratch: Path, trials: int) -> Tally:
    """A bit flipped in its tables, or an end cut off: an error or pixels, never a signal."""
    tally = Tally("beton with damaged tables or without its end: opened and read, no crash")
    draw = random.Random(0)
    whole = path.read_bytes()
    num_table_bytes = len(whole) - open_beton(path).pointers.size * 24
    damaged = scratch / "damaged.beton"
    for number in range(trials):
        content = bytearray(whole)
        if number % 2:
            del content[draw.randrange(len(content)) :]
        else:
            tables = [*range(20_000), *range(num_table_bytes, len(whole))]
            content[draw.choice(tables)] ^= 1 << draw.randrange(8)
        damaged.write_bytes(content)
        job = Job.start(lambda: _read_all(damaged), scratch / "beton.log")
        status = job.wait(_LIMIT_SECONDS)
        tally.count("" if status in (0, 65) else f"status {status}, trial {number}")
    return tally


def _read_all(path: Path) -> None:
    import numpy as np

    from rela.data.kernels.resample import BILINEAR
    from rela.data.loader import CenterCropLoader

    try:
        beton = open_beton(path)
        rows = [np.arange(len(beton))]
        for _ in CenterCropLoader(beton, rows, 16, 16, BILINEAR, num_threads=1):
            pass
    except RelaError as error:
        raise SystemExit(error.exit_status) from error
