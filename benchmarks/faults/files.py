"""Hostile and damaged files, and what is none: no code run, nothing else read, no memory taken, one line."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.damaged_images import photo, saved
from benchmarks.faults.hostile_files import HDF5, IMAGES, WEIGHTS, Builder, betons
from benchmarks.faults.jobs import import_everything
from benchmarks.faults.mutations import KINDS, deep_json, mutated, odd_json
from benchmarks.faults.readings import Case, try_all
from benchmarks.faults.stand_ins import in_workspaces, where_named
from benchmarks.faults.tally import Tally
from benchmarks.faults.watched import Watched

_TRIALS = 500
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
Read = Callable[[Path], str | None]


def run(trials: int, scratch: Path) -> list[Tally]:
    """Every hostile file once, and `trials` damaged ones of every kind."""
    import_everything()
    place = scratch / "files"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    workspace = make_workspace(place)
    return [
        *hostile(place, workspace),
        *damaged(place, workspace, trials or _TRIALS),
        where_named(place, readers(workspace)),
        *in_workspaces(place, workspace, read_status, max(1, (trials or _TRIALS) // 5)),
    ]


def rela(workspace: Path, *words: object) -> str:
    """What a command says; raises what it does not explain, RuntimeError for an unknown status."""
    from click.testing import CliRunner

    from rela.cli import main

    result = CliRunner().invoke(main, ["--workspace", str(workspace), *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code not in (0, 2, 65, 74, 75, 77):
        raise RuntimeError(f"status {result.exit_code}: {result.output}")
    return str(result.output)


def make_workspace(place: Path) -> Path:
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
    return workspace


# Hostile files


def hostile(place: Path, workspace: Path) -> list[Tally]:
    """Files that were made to do harm."""
    folder, secret, trace = place / "hostile", Watched(place / "secret"), place / "executed"
    folder.mkdir()
    beton = (workspace / "datasets" / "images" / "train.beton").read_bytes()
    beton_files: dict[str, Builder] = {
        what: lambda path, secret, trace, content=content: path.write_bytes(content)  # type: ignore[misc]
        for what, content in betons(beton)
    }
    image_files: dict[str, Builder] = {
        what: lambda path, secret, trace, content=content: path.write_bytes(content)  # type: ignore[misc]
        for what, content in IMAGES.items()
    }
    tallies = []
    for what, files, read in (
        ("weights", WEIGHTS, read_weights),
        ("HDF5 files", {name: (".h5", build) for name, build in HDF5.items()}, read_matrix),
        ("betons", {name: (".beton", build) for name, build in beton_files.items()}, read_beton),
        ("images", {name: (".png", build) for name, build in image_files.items()}, read_image),
    ):
        tally = Tally(f"hostile {what}: no code run, no other file read, no memory beyond 64 MiB")
        cases = []
        for number, (name, (suffix, build)) in enumerate(files.items()):
            path = folder / f"{what[:3]}{number}{suffix}"
            build(path, secret.path, trace)
            cases.append(
                Case(name, lambda path=path, read=read: refused(path, read), path.stat().st_size)
            )  # type: ignore[misc]
        secret.was_touched()
        try_all(tally, cases, place / "log")
        tally.count("a foreign file was opened" if secret.was_touched() else "")
        tally.count("code was run" if trace.exists() else "")
        tallies.append(tally)
    return tallies


def refused(path: Path, read: Read) -> str:
    """The error that reading gives goes on; without one, that is the problem."""
    return read(path) or "it was accepted"


def read_weights(path: Path) -> str | None:
    """As a prior; returns nothing if it is taken."""
    from rela.priors import PriorRequest, resolve

    resolve(PriorRequest(f"file:{path}", arch=_ARCH, image_size=_SIZE))
    return None


def read_matrix(path: Path) -> str | None:
    """Both ways."""
    from rela.representations.matrix_file import open_matrix
    from rela.representations.targets import open_targets

    matrix = open_matrix(path)
    open_targets(path, len(matrix.values if matrix.crops is None else matrix.crops))
    return None


def read_beton(path: Path) -> str | None:
    """Its checks, then every image."""
    from rela.data.beton.reader import open_beton
    from rela.data.loader import CenterCropLoader
    from rela.representations.embedder import in_batches

    beton = open_beton(path, 2)
    for _ in CenterCropLoader(beton, in_batches(np.arange(len(beton)), 8), 16, 16, 0, 1):
        pass
    return None


def read_image(path: Path) -> str | None:
    """As a conversion does."""
    from rela.data.beton.encoding import Encoding, encode_image
    from rela.errors import DataError
    from rela.sources.image_file import BadImageError, read_image_file

    try:
        encode_image(read_image_file(path), Encoding(), 0.0)
    except BadImageError as error:
        raise DataError(str(error)) from error
    return None


def readers(workspace: Path) -> dict[str, tuple[str, Read]]:
    """Files that a user names: suffix and reader."""
    from rela.errors import DataError

    def by(*words: object) -> Read:
        def read(path: Path) -> str | None:
            said = rela(workspace, *(path if word == "PATH" else word for word in words)).strip()
            if said.startswith("rela: "):
                raise DataError(said)
            return None

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


# Damaged files


def damaged(place: Path, workspace: Path, trials: int) -> Iterator[Tally]:
    """Files of a workspace with other bytes or odd entries, through their readers and commands."""
    matrix = min(workspace.glob("representations/*2crops*/representations.h5"))
    targets = min(workspace.glob("targets/*/targets.h5"))
    weights = workspace / "runs/finished/backbone.safetensors"
    record = min(workspace.glob("priors/*.json"))
    checkpoint = max(workspace.glob("runs/interrupted/checkpoints/*.json"))
    dataset = workspace / "datasets" / "images"
    recipe = place / "recipe.toml"
    recipe.write_text(_RECIPE)
    for what, path, read in (
        ("representations", matrix, read_matrix),
        ("targets", targets, read_matrix),
        ("betons", dataset / "train.beton", read_beton),
        ("weights", weights, read_weights),
        ("manifests", dataset / "manifest.json", read_manifest),
        ("configurations of runs", workspace / "runs/interrupted/config.json", read_configuration),
        ("records of checkpoints", checkpoint, read_checkpoint_record),
        ("records of priors", record, read_prior_record),
        (
            "recipes",
            recipe,
            lambda path: rela(workspace, "run", path, "--dry-run", "--no-measure") and None,
        ),
    ):
        yield _with_other_bytes(what, path, read, place, trials)
    for what, name, read in (
        ("manifest of a data set", "datasets/images/manifest.json", read_status),
        (
            "manifest of representations",
            f"representations/{matrix.parent.name}/manifest.json",
            read_status,
        ),
        ("manifest of a run", "runs/finished/manifest.json", read_status),
        ("configuration of a run", "runs/interrupted/config.json", read_status),
        ("evaluation", "runs/finished/eval.json", read_evaluation),
        ("cost", "runs/finished/cost.json", read_status),
    ):
        yield _with_odd_entries(what, name, read, place, workspace, max(1, trials // 10))


def _with_other_bytes(what: str, path: Path, read: Read, place: Path, trials: int) -> Tally:
    tally = Tally(f"damaged {what}: an error of one line, or read as it was")
    folder = place / "damaged"
    folder.mkdir(exist_ok=True)
    copy, content = folder / path.name, path.read_bytes()

    def case(number: int) -> Case:
        def write_and_read() -> str | None:
            copy.unlink(missing_ok=True)
            copy.write_bytes(mutated(content, number) if number < trials else deep_json())
            return read(copy)

        kind = KINDS[number % len(KINDS)] if number < trials else "deep"
        return Case(f"{kind}, number {number}", write_and_read, len(content))

    shutil.copy(path, copy)
    read(copy)  # what is imported and compiled on the way is not counted
    try_all(tally, [case(number) for number in range(trials + 1)], place / "log")
    shutil.rmtree(folder)
    return tally


def _with_odd_entries(
    what: str, name: str, read: Callable[[Path], None], place: Path, workspace: Path, trials: int
) -> Tally:
    from rela.pipeline.fingerprint import fingerprint

    tally = Tally(f"odd entries in the {what}: commands end with an error of one line, or go on")
    copy = place / "copy"
    shutil.copytree(workspace, copy)
    document = json.loads((workspace / name).read_bytes())
    is_manifest = document.pop("manifest_sha256", None) is not None

    def case(label: str, changed: dict[str, Any]) -> Case:
        def write_and_read() -> None:
            digest = {}
            if is_manifest:  # well digested, so that nothing else refuses it
                try:
                    digest = {"manifest_sha256": fingerprint(changed)}
                except ValueError:
                    digest = {"manifest_sha256": ""}
            (copy / name).write_text(json.dumps({**changed, **digest}))
            os.utime(copy / name)
            read(copy)

        return Case(label, write_and_read, 1 << 26)

    read(copy)
    try_all(tally, [case(*one) for one in odd_json(document, trials, len(what))], place / "log")
    shutil.rmtree(copy)
    return tally


def read_manifest(path: Path) -> str | None:
    """With every file that it names."""
    from rela.pipeline.artifact import open_artifact

    artifact = open_artifact(path.parent)
    assert artifact is not None
    for name in artifact.manifest.file_sha256:
        if not (path.parent / name).resolve().is_relative_to(path.parent.resolve()):
            return f"{name} leads out of the artifact"
    return None


def read_configuration(path: Path) -> str | None:
    """Its settings."""
    from rela.stages.workspace.run import read_config

    read_config(path.parent)
    return None


def read_checkpoint_record(path: Path) -> str | None:
    """Damaged ones are passed over."""
    from rela.training.checkpoints import newest_checkpoint

    newest_checkpoint(path.parent)
    return None


def read_prior_record(path: Path) -> str | None:
    """Damaged ones are made again."""
    from rela.stages.priors.identify import _read_record

    _read_record(path)
    return None


def read_status(workspace: Path) -> None:
    """Everything that looks at a whole workspace, and what goes on with an interrupted run."""
    for words in (
        ("status",),
        ("cache", "ls"),
        ("cache", "verify"),
        ("priors", "list"),
        ("embed", *_PRIOR, "--crops", 2),
    ):
        rela(workspace, *words)
    rela(workspace, "cache", "gc", "--dry-run")
    rela(workspace, "train", "--resume", "--name", "interrupted")
    (workspace / "runs/interrupted/manifest.json").unlink(missing_ok=True)


def read_evaluation(workspace: Path) -> None:
    """What shows accuracies."""
    rela(workspace, "status")
    rela(workspace, "eval", "finished", "--protocol", "knn20")
