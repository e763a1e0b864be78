"""Hostile and damaged files, and what stands in their place.

Each is read, or refused in one line: no code run, no other file read, no memory taken.
"""

import contextlib
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from benchmarks.faults import Tally, hostile_files
from benchmarks.faults.jobs import Job, import_everything
from benchmarks.faults.mutations import KINDS, deep_json, mutated, odd_json
from benchmarks.faults.readings import Case, Watched, try_all
from benchmarks.faults.workspaces import write_digits
from rela.cli import main
from rela.data.beton.encoding import Encoding, encode_image
from rela.data.beton.reader import open_beton
from rela.data.loader import CenterCropLoader, in_batches
from rela.errors import DataError
from rela.pipeline.artifact import open_artifact
from rela.pipeline.fingerprint import fingerprint
from rela.priors import PriorRequest, resolve
from rela.representations.matrix_file import open_matrix
from rela.representations.targets import open_targets
from rela.sources.image_file import BadImageError, read_image_file
from rela.stages.priors.records import read_record
from rela.stages.workspace.run import read_config
from rela.training.checkpoints import newest_checkpoint

_TRIALS, _RESUMED = 500, 50
_LIMIT_SECONDS = 300.0
_FAIR_BYTES = 1 << 26  # of memory, for a command that trains
_NUM_CLASSES = 10
_ARCH, _SIZE = "shufflenet_v2_x0_5", 32
_PRIOR = ("--prior", f"random:{_ARCH}", "--image-size", _SIZE)
_TRAIN = (
    "train", "--model", _ARCH, "--image-size", _SIZE, "--epochs", 1, "--batch-size", 8,
    "--handover", 0.5, "--name",
)  # fmt: skip
_DRY_RUN = ("run", "--dry-run", "--no-measure")
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
_LETTER = b"Dear Sir or Madam"
STAND_INS: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
}
Read = Callable[[Path], object]


def files(trials: int, scratch: Path) -> Iterator[Tally]:
    """Every hostile file once, and `trials` damaged ones of every kind.

    Below 50, no run is resumed from a damaged workspace, which takes most of the time.
    """
    import_everything()
    place = scratch / "files"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    # by a process of its own: memory that a training keeps would hide what a reader takes
    job = Job.start(lambda: make_workspace(place), place / "log")
    if job.wait(_LIMIT_SECONDS):
        raise RuntimeError(job.said())
    workspace, trials = place / "workspace", trials or _TRIALS
    read = functools.partial(read_workspace, resumes=trials >= _RESUMED)
    yield from hostile(place, workspace)
    yield from damaged(place, workspace, trials)
    yield from odd_entries(place, workspace, max(8, trials // 10), read)
    yield where_named(place, workspace)
    yield in_place_of_files(place, workspace, max(15, trials // 5), read)
    yield links_to_a_letter(place, workspace, read)


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
    workspace, images = place / "workspace", write_digits(place / "images", 5 * _NUM_CLASSES)
    rela(workspace, "convert", images, "--workers", 1, "--val-fraction", 0.2)
    rela(workspace, "embed", *_PRIOR, "--crops", 2)
    for name in ("finished", "interrupted"):
        rela(workspace, *_TRAIN, name, "--seed", len(name))
    rela(workspace, "eval", "finished", "--protocol", "knn20")
    (workspace / "runs" / "interrupted" / "manifest.json").unlink()


# Files that must be refused


def hostile(place: Path, workspace: Path) -> Iterator[Tally]:
    """Files that were made to do harm."""
    folder, secret, trace = place / "hostile", Watched(place / "secret"), place / "executed"
    folder.mkdir()
    beton = (workspace / "datasets" / "images" / "train.beton").read_bytes()

    def no_harm(path: Path, read: Read) -> str:
        try:
            return refused(path, read)
        finally:
            if secret.was_touched():
                raise RuntimeError("another file was opened")
            if trace.exists():
                trace.rmdir()
                raise RuntimeError("code was run")

    for what, made, read in (
        ("weights", hostile_files.weights(trace), read_weights),
        ("HDF5 files", hostile_files.hdf5(secret.path), read_matrix),
        ("betons", hostile_files.betons(beton), lambda path: open_beton(path, _NUM_CLASSES)),
        ("images", hostile_files.images(), read_image),
    ):
        cases = []
        for number, (name, (suffix, content)) in enumerate(made.items()):
            path = folder / f"{what[:3]}{number}{suffix}"
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                content(path)
            attempt = functools.partial(no_harm, path, read)
            cases.append(Case(name, attempt, path.stat().st_size))
        secret.was_touched()
        tally = Tally(f"hostile {what}: no code run, no other file read, no memory beyond 64 MiB")
        try_all(tally, cases, place / "log")
        yield tally


def where_named(place: Path, workspace: Path) -> Tally:
    """Stand-ins for files that a user names."""
    tally = Tally("pipes, folders, devices, links where a file is named: an error of one line")
    (place / "named").mkdir()
    cases = []
    for what, (suffix, read) in readers(workspace).items():
        for name, make in STAND_INS.items():
            path = place / "named" / f"{len(cases)}{suffix}"
            make(path)
            attempt = functools.partial(refused, path, read)
            cases.append(Case(f"{name} for {what}", attempt, _FAIR_BYTES))
    try_all(tally, cases, place / "log")
    return tally


def refused(path: Path, read: Read) -> str:
    """Read what must not be read: the error has to name the file."""
    try:
        read(path)
    except Exception as error:
        if path.name not in str(error):
            raise RuntimeError(f"{path.name} is not named") from error
        raise
    return "it was accepted"


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
        "a recipe": (".toml", by(*_DRY_RUN, "PATH")),
        "a list of images": (".csv", convert),
        "an archive of images": (".tar", convert),
        "a table of images": (".parquet", convert),
    }


def read_weights(path: Path) -> None:
    """As a prior."""
    resolve(PriorRequest(f"file:{path}", arch=_ARCH, image_size=_SIZE))


def read_matrix(path: Path) -> None:
    """Both ways."""
    matrix = open_matrix(path)
    open_targets(path, len(matrix.values if matrix.crops is None else matrix.crops))


def read_beton(path: Path) -> None:
    """Its checks, then every image."""
    beton = open_beton(path, _NUM_CLASSES)
    for _ in CenterCropLoader(beton, in_batches(np.arange(len(beton)), 8), 16, 16, 0, 1):
        pass


def read_image(path: Path) -> None:
    """As a conversion does."""
    try:
        encode_image(read_image_file(path), Encoding(), 0.0)
    except BadImageError as error:
        raise DataError(f"{path}: {error}") from error


# Files that are read, or refused


def damaged(place: Path, workspace: Path, trials: int) -> Iterator[Tally]:
    """Files of a workspace with other bytes, through their readers."""
    (place / "recipe.toml").write_text(_RECIPE)
    readings: dict[str, tuple[str, Read]] = {
        "representations": ("representations/*2crops*/representations.h5", read_matrix),
        "targets": ("targets/*/targets.h5", read_matrix),
        "betons": ("datasets/images/train.beton", read_beton),
        "weights": ("runs/finished/backbone.safetensors", read_weights),
        "manifests": ("datasets/images/manifest.json", read_manifest),
        "configurations of runs": (
            "runs/interrupted/config.json", lambda path: read_config(path.parent),
        ),
        # damaged ones are skipped, and made again
        "records of checkpoints": (
            "runs/interrupted/checkpoints/*.json", lambda path: newest_checkpoint(path.parent),
        ),
        "records of priors": ("priors/*.json", read_record),
        "recipes": ("../recipe.toml", lambda path: rela(workspace, *_DRY_RUN, path)),
    }  # fmt: skip

    def write_and_read(content: bytes, number: int, copy: Path, read: Read) -> None:
        copy.unlink(missing_ok=True)
        copy.write_bytes(mutated(content, number) if number < trials else deep_json())
        read(copy)

    for what, (pattern, read) in readings.items():
        path = max(workspace.glob(pattern))
        folder, content = place / "damaged" / what, path.read_bytes()
        folder.mkdir(parents=True)
        copy = folder / path.name
        shutil.copy(path, copy)
        read(copy)  # imports and compilation are not counted
        cases = []
        for number in range(trials + 1):
            kind = KINDS[number % len(KINDS)] if number < trials else "deep"
            attempt = functools.partial(write_and_read, content, number, copy, read)
            cases.append(Case(f"{kind}, number {number}", attempt, len(content)))
        tally = Tally(f"damaged {what}: an error of one line, or read as it was")
        try_all(tally, cases, place / "log")
        yield tally


def read_manifest(path: Path) -> None:
    """With every file that it names."""
    artifact = open_artifact(path.parent)
    assert artifact is not None
    for name in artifact.manifest.file_sha256:
        assert (path.parent / name).resolve().is_relative_to(path.parent.resolve()), name


# Workspaces in which something is wrong


def odd_entries(place: Path, workspace: Path, trials: int, read_all: Read) -> Iterator[Tally]:
    """JSON of a workspace with entries removed, added or of another type."""
    for what, pattern, read in (
        ("manifest of a data set", "datasets/images/manifest.json", read_all),
        ("manifest of representations", "representations/*2crops*/manifest.json", read_all),
        ("manifest of a run", "runs/finished/manifest.json", read_all),
        ("configuration of a run", "runs/interrupted/config.json", read_all),
        ("evaluation", "runs/finished/eval.json", read_evaluation),
        ("cost", "runs/finished/cost.json", read_all),
    ):
        path = max(workspace.glob(pattern))
        document = json.loads(path.read_bytes())
        is_manifest = document.pop("manifest_sha256", None) is not None
        write = functools.partial(_write_json, path.relative_to(workspace), is_manifest)
        odd = odd_json(document, trials, len(what))
        changes = [(label, functools.partial(write, changed)) for label, changed in odd]
        promise = f"odd entries in the {what}: commands end with an error of one line, or go on"
        yield _in_copies(Tally(promise), place, workspace, changes, read)


def _write_json(path: Path, is_manifest: bool, document: dict[str, Any], copy: Path) -> None:
    if is_manifest:  # well digested, so that nothing else refuses it
        digest = ""
        with contextlib.suppress(ValueError):
            digest = fingerprint(document)
        document = {**document, "manifest_sha256": digest}
    (copy / path).write_text(json.dumps(document))


def in_place_of_files(place: Path, workspace: Path, trials: int, read: Read) -> Tally:
    """Stand-ins for `trials` files of a workspace, chosen by chance."""
    promise = "pipes, folders, devices, links for a workspace's files: an error of one line, or it goes on"
    pairs = [(file, name) for file in _files_of(workspace) for name in STAND_INS]
    chosen = (pairs[n] for n in np.random.default_rng(0).permutation(len(pairs))[:trials])
    changes = [
        (f"{name} at {file}", functools.partial(_put, file, STAND_INS[name]))
        for file, name in chosen
    ]
    return _in_copies(Tally(promise), place, workspace, changes, read)


def links_to_a_letter(place: Path, workspace: Path, read: Read) -> Tally:
    """In place of all files of one name at once, one name after the other."""
    letter, found = place / "letter", _files_of(workspace)
    letter.write_bytes(_LETTER)

    def link(name: str, copy: Path) -> None:
        for file in found:
            if file.name == name:
                _put(file, lambda path: path.symlink_to(letter), copy)

    def read_and_look(copy: Path) -> None:
        try:
            read(copy)
        finally:
            if letter.read_bytes() != _LETTER:
                letter.write_bytes(_LETTER)
                raise RuntimeError("the letter was changed")

    names = sorted({file.name for file in found})
    changes = [(name, functools.partial(link, name)) for name in names]
    promise = "a workspace's files link to somebody's letter: it stays as it was"
    return _in_copies(Tally(promise), place, workspace, changes, read_and_look)


def _files_of(workspace: Path) -> list[Path]:
    return sorted(p.relative_to(workspace) for p in workspace.rglob("*") if p.is_file())


def _put(file: Path, make: Callable[[Path], None], copy: Path) -> None:
    (copy / file).unlink()
    make(copy / file)


def _in_copies(
    tally: Tally, place: Path, workspace: Path,
    changes: Iterable[tuple[str, Callable[[Path], None]]], read: Read,
) -> Tally:  # fmt: skip
    """Read a copy of the workspace after each of these changes."""
    copy = place / "copy"

    def attempt(change: Callable[[Path], None]) -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(workspace, copy)
        change(copy)
        read(copy)

    attempt(lambda copy: None)  # imports and compilation are not counted
    cases = [
        Case(what, functools.partial(attempt, change), _FAIR_BYTES) for what, change in changes
    ]
    try_all(tally, cases, place / "log")
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
