"""Hostile and damaged files, and what stands in their place.

Each is read, or refused in one line: no code run, no other file read, no memory taken.
"""

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from benchmarks.faults import hostile_files
from benchmarks.faults.damaged_images import photo, saved
from benchmarks.faults.jobs import Job, import_everything
from benchmarks.faults.mutations import KINDS, deep_json, mutated, odd_json
from benchmarks.faults.readings import Case, try_all
from benchmarks.faults.stand_ins import in_workspaces, where_named
from benchmarks.faults.tally import Tally
from benchmarks.faults.watched import Watched
from rela.cli import main
from rela.data.beton.encoding import Encoding, encode_image
from rela.data.beton.reader import open_beton
from rela.data.loader import CenterCropLoader
from rela.errors import DataError
from rela.pipeline.artifact import open_artifact
from rela.pipeline.fingerprint import fingerprint
from rela.priors import PriorRequest, resolve
from rela.representations.embedder import in_batches
from rela.representations.matrix_file import open_matrix
from rela.representations.targets import open_targets
from rela.sources.image_file import BadImageError, read_image_file
from rela.stages.priors.identify import _read_record
from rela.stages.workspace.run import read_config
from rela.training.checkpoints import newest_checkpoint

_TRIALS, _RESUMED = 500, 50
_LIMIT_SECONDS = 300.0
_ARCH, _SIZE = "shufflenet_v2_x0_5", 32
_PRIOR = ("--prior", f"random:{_ARCH}", "--image-size", _SIZE)
_TRAIN = (
    "train", "--model", _ARCH, "--image-size", _SIZE, "--epochs", 1, "--batch-size", 8,
    "--handover", 0.5, "--name",
)  # fmt: skip
_RECIPE = """
[variables]
data = "images"
[[convert]]
source = "{data}"
[[train]]
prior = ["none", "random"]
lr = [0.1, 1e-3]
seed = [0, 1]
[[eval]]
protocol = ["knn20"]
"""
Read = Callable[[Path], object]


def run(trials: int, scratch: Path) -> list[Tally]:
    """Every hostile file once, and `trials` damaged ones of every kind.

    Below 50, no run is resumed from a damaged workspace, which takes most of the time.
    """
    import_everything()
    place = scratch / "files"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    # by a process of its own: memory that a training keeps would hide what a reader takes
    if Job.start(lambda: make_workspace(place), place / "log").wait(_LIMIT_SECONDS):
        raise RuntimeError((place / "log").read_text())
    workspace, trials = place / "workspace", trials or _TRIALS
    read = functools.partial(read_workspace, resumes=trials >= _RESUMED)
    return [
        *hostile(place, workspace),
        *damaged(place, workspace, trials, read),
        where_named(place, readers(workspace)),
        *in_workspaces(place, workspace, read, max(15, trials // 5)),
    ]


def rela(workspace: Path, *words: object) -> str:
    """Output of a command; an exception without an explanation or an unknown status is raised."""
    result = CliRunner().invoke(main, ["--workspace", str(workspace), *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code not in (0, 2, 65, 74, 75, 77):
        raise RuntimeError(f"status {result.exit_code}: {result.output}")
    return str(result.output)


def make_workspace(place: Path) -> None:
    """A data set, representations, a finished and evaluated run, and an interrupted one."""
    random, images, workspace = np.random.default_rng(0), place / "images", place / "workspace"
    for number in range(30):
        path = images / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(saved(photo(random).resize((16, 16)), ".png"))
    rela(workspace, "convert", images, "--workers", 1, "--val-fraction", 0.2)
    rela(workspace, "embed", *_PRIOR, "--crops", 2)
    for name in ("finished", "interrupted"):
        rela(workspace, *_TRAIN, name, "--seed", len(name))
    rela(workspace, "eval", "finished", "--protocol", "knn20")
    (workspace / "runs" / "interrupted" / "manifest.json").unlink()


def hostile(place: Path, workspace: Path) -> Iterator[Tally]:
    """Files that were made to do harm."""
    folder, secret, trace = place / "hostile", Watched(place / "secret"), place / "executed"
    folder.mkdir()
    beton = (workspace / "datasets" / "images" / "train.beton").read_bytes()

    def refused(path: Path, read: Read) -> str:
        try:
            read(path)
        except Exception as error:
            if path.name not in str(error):
                raise RuntimeError(f"{path.name} is not named") from error
            raise
        finally:
            if secret.was_touched():
                raise RuntimeError("another file was opened")
            if trace.exists():
                trace.rmdir()
                raise RuntimeError("code was run")
        return "it was accepted"

    for what, files, read in (
        ("weights", hostile_files.weights(trace), read_weights),
        ("HDF5 files", hostile_files.hdf5(secret.path), read_matrix),
        ("betons", hostile_files.betons(beton), lambda path: open_beton(path, 2)),
        ("images", hostile_files.images(), read_image),
    ):
        cases = []
        for number, (name, (suffix, write)) in enumerate(files.items()):
            path = folder / f"{what[:3]}{number}{suffix}"
            write(path)
            attempt = functools.partial(refused, path, read)
            cases.append(Case(name, attempt, path.stat().st_size))
        secret.was_touched()
        tally = Tally(f"hostile {what}: no code run, no other file read, no memory beyond 64 MiB")
        try_all(tally, cases, place / "log")
        yield tally


def read_weights(path: Path) -> None:
    """As a prior."""
    resolve(PriorRequest(f"file:{path}", arch=_ARCH, image_size=_SIZE))


def read_matrix(path: Path) -> None:
    """Both ways."""
    matrix = open_matrix(path)
    open_targets(path, len(matrix.values if matrix.crops is None else matrix.crops))


def read_beton(path: Path) -> None:
    """Its checks, then every image."""
    beton = open_beton(path, 2)
    for _ in CenterCropLoader(beton, in_batches(np.arange(len(beton)), 8), 16, 16, 0, 1):
        pass


def read_image(path: Path) -> None:
    """As a conversion does."""
    try:
        encode_image(read_image_file(path), Encoding(), 0.0)
    except BadImageError as error:
        raise DataError(f"{path}: {error}") from error


def read_manifest(path: Path) -> None:
    """With every file that it names."""
    artifact = open_artifact(path.parent)
    assert artifact is not None
    for name in artifact.manifest.file_sha256:
        assert (path.parent / name).resolve().is_relative_to(path.parent.resolve()), name


def readers(workspace: Path) -> dict[str, tuple[str, Read]]:
    """Files that a user names: suffix and reader."""

    def by(*words: object) -> Read:
        def read(path: Path) -> None:
            said = rela(workspace, *(path if word == "PATH" else word for word in words)).strip()
            if said.startswith("rela: "):
                raise DataError(said)

        return read

    convert = by("convert", "PATH", "--workers", 1, "--name", "given")
    return {
        "weights": (".pth", read_weights),
        "safetensors": (".safetensors", read_weights),
        "an HDF5 file": (".h5", read_matrix),
        "a beton": (".beton", read_beton),
        "an image": (".png", read_image),
        "an image to compare": (".png", by("neighbors", "PATH", "--prior", "run:finished")),
        "a recipe": (".toml", by("run", "PATH", "--dry-run", "--no-measure")),
        "a list of images": (".csv", convert),
        "an archive of images": (".tar", convert),
        "a table of images": (".parquet", convert),
    }


def damaged(place: Path, workspace: Path, trials: int, read_all: Read) -> Iterator[Tally]:
    """Files of a workspace with other bytes or odd entries, through their readers and commands."""
    (place / "recipe.toml").write_text(_RECIPE)
    dry_run = ("--dry-run", "--no-measure")
    readings: dict[str, tuple[str, Read]] = {
        "representations": ("representations/*2crops*/representations.h5", read_matrix),
        "targets": ("targets/*/targets.h5", read_matrix),
        "betons": ("datasets/images/train.beton", read_beton),
        "weights": ("runs/finished/backbone.safetensors", read_weights),
        "manifests": ("datasets/images/manifest.json", read_manifest),
        "configurations of runs": (
            "runs/interrupted/config.json",
            lambda path: read_config(path.parent),
        ),
        # damaged ones are skipped, and made again
        "records of checkpoints": (
            "runs/interrupted/checkpoints/*.json", lambda path: newest_checkpoint(path.parent),
        ),
        "records of priors": ("priors/*.json", _read_record),
        "recipes": ("../recipe.toml", lambda path: rela(workspace, "run", path, *dry_run)),
    }  # fmt: skip
    for what, (pattern, read) in readings.items():
        yield _with_other_bytes(what, max(workspace.glob(pattern)), read, place, trials)
    for what, pattern, read in (
        ("manifest of a data set", "datasets/images/manifest.json", read_all),
        ("manifest of representations", "representations/*2crops*/manifest.json", read_all),
        ("manifest of a run", "runs/finished/manifest.json", read_all),
        ("configuration of a run", "runs/interrupted/config.json", read_all),
        ("evaluation", "runs/finished/eval.json", read_evaluation),
        ("cost", "runs/finished/cost.json", read_all),
    ):
        path = max(workspace.glob(pattern)).relative_to(workspace)
        yield _with_odd_entries(what, path, read, place, workspace, max(8, trials // 10))


def _with_other_bytes(what: str, path: Path, read: Read, place: Path, trials: int) -> Tally:
    tally = Tally(f"damaged {what}: an error of one line, or read as it was")
    folder = place / "damaged"
    folder.mkdir(exist_ok=True)
    copy, content = folder / path.name, path.read_bytes()

    def case(number: int) -> Case:
        def write_and_read() -> None:
            copy.unlink(missing_ok=True)
            copy.write_bytes(mutated(content, number) if number < trials else deep_json())
            read(copy)

        kind = KINDS[number % len(KINDS)] if number < trials else "deep"
        return Case(f"{kind}, number {number}", write_and_read, len(content))

    shutil.copy(path, copy)
    read(copy)  # imports and compilation are not counted
    try_all(tally, [case(number) for number in range(trials + 1)], place / "log")
    shutil.rmtree(folder)
    return tally


def _with_odd_entries(
    what: str, path: Path, read: Read, place: Path, workspace: Path, trials: int
) -> Tally:
    tally = Tally(f"odd entries in the {what}: commands end with an error of one line, or go on")
    copy = place / "copy"
    shutil.copytree(workspace, copy)
    document = json.loads((workspace / path).read_bytes())
    is_manifest = document.pop("manifest_sha256", None) is not None

    def case(label: str, changed: dict[str, Any]) -> Case:
        def write_and_read() -> None:
            digest = {}
            if is_manifest:  # well digested, so that nothing else refuses it
                try:
                    digest = {"manifest_sha256": fingerprint(changed)}
                except ValueError:
                    digest = {"manifest_sha256": ""}
            (copy / path).write_text(json.dumps({**changed, **digest}))
            os.utime(copy / path)
            read(copy)

        return Case(label, write_and_read, 1 << 26)

    read(copy)
    try_all(tally, [case(*one) for one in odd_json(document, trials, len(what))], place / "log")
    shutil.rmtree(copy)
    return tally


def read_workspace(workspace: Path, resumes: bool) -> None:
    """What looks at a whole workspace, finds what was made, and (if `resumes`) trains on."""
    images = workspace.parent / "images"
    for words in ("status", "cache ls", "cache verify", "priors list", "cache gc --dry-run"):
        rela(workspace, *words.split())
    rela(workspace, "embed", *_PRIOR, "--crops", 2)
    rela(workspace, "convert", images, "--workers", 1, "--val-fraction", 0.2)
    if resumes:
        rela(workspace, "train", "--resume", "--name", "interrupted")
        (workspace / "runs/interrupted/manifest.json").unlink(missing_ok=True)


def read_evaluation(workspace: Path) -> None:
    """What shows accuracies."""
    rela(workspace, "status")
    rela(workspace, "eval", "finished", "--protocol", "knn20")
