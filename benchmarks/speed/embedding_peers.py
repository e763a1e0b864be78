"""`rela embed`, end to end, against `lightly_train.embed` and against timm, a DataLoader and h5py.

EfficientNet-Lite0 at 224 px with the same weights, from JPEGs to the file of features. Every side is its own
process, from start to end. LightlyTrain is installed from PyPI, beside the packages that are here, in an
environment below the scratch folder. PEER_IMAGES="512 5000" sets the numbers of images.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.speed.comparison import Comparison, Figure, compare
from benchmarks.speed.peer_environment import (
    LIGHTLY_TRAIN,
    cpu_seconds_of_children,
    environment,
    run_process,
)
from benchmarks.speed.photos import write_photos

MODEL, SIZE, BATCH_SIZE = "tf_efficientnet_lite0", 224, 128
COUNTS = tuple(int(word) for word in os.environ.get("PEER_IMAGES", "512").split())
HEIGHT, WIDTH = 375, 500
FASTEST = "openvino"


def run(rounds: int, scratch: Path) -> list[Comparison | Figure]:
    """Images per second and per CPU second; the agreement of features."""
    home = scratch / "peers"
    python = environment(home / "environment", LIGHTLY_TRAIN)
    weights, checkpoint = home / "weights.pth", home / "lightly" / "checkpoints" / "last.ckpt"
    if not checkpoint.exists():
        some = write_photos(home / "photos", 16, HEIGHT, WIDTH)
        _call(sys.executable, "weights", weights)
        _call(python, "checkpoint", some, weights, home / "lightly")
    return [
        found
        for count in COUNTS
        for found in _compared(home, python, weights, checkpoint, count, rounds)
    ]


def _compared(
    home: Path, python: Path, weights: Path, checkpoint: Path, count: int, rounds: int
) -> list[Comparison | Figure]:
    folder = write_photos(home / f"photos-{count}", count, HEIGHT, WIDTH)
    workspace, plain = home / f"workspace-{count}", home / f"plain-{count}.h5"
    cpu: dict[str, list[float]] = {}
    convert = "convert", folder, "--name", "photos", "--val-fraction", "0"
    prior = "--prior", f"timm:{MODEL}", "--weights", weights
    _rela(workspace, *convert)

    def embed(engine: str) -> None:
        shutil.rmtree(workspace / "representations", ignore_errors=True)
        _rela(workspace, "embed", "photos", *prior, "--engine", engine)

    def convert_and_embed() -> None:
        shutil.rmtree(workspace / "datasets")
        _rela(workspace, *convert)
        embed(FASTEST)

    ours = f"rela embed --engine {FASTEST}", f"rela convert, --engine {FASTEST}", "rela embed"
    lightly, timm = "lightly_train.embed", "timm, DataLoader, h5py"
    works: dict[str, Callable[[], object]] = {
        ours[0]: lambda: embed(FASTEST),
        ours[1]: convert_and_embed,
        ours[2]: lambda: embed("torch"),
        lightly: lambda: _call(python, "lightly", folder, checkpoint, home / "lightly.pt"),
        timm: lambda: _call(sys.executable, "plain", folder, weights, plain),
    }
    sides = {name: _timed(name, work, count, cpu) for name, work in works.items()}
    title = f"{MODEL} at {SIZE} px, {count} JPEGs of {HEIGHT}×{WIDTH} to a file"
    every = compare(title, "images/s", sides, rounds)
    of_cpu = Comparison(
        f"{title}, by CPU seconds", "images/s", {name: of[-rounds:] for name, of in cpu.items()}
    )
    found: list[Comparison | Figure] = [
        each.of(each.title, [one, lightly, timm], {}) for each in (every, of_cpu) for one in ours
    ]
    embed(FASTEST)
    agreement = Figure(
        "centred cosine of rela's and timm's features", "", [_cosine(workspace, plain)]
    )
    return [*found, agreement]


def _timed(
    name: str, work: Callable[[], object], count: int, cpu: dict[str, list[float]]
) -> Callable[[], float]:
    def rate() -> float:
        start, before = time.perf_counter(), cpu_seconds_of_children()
        work()
        seconds, cpu_seconds = time.perf_counter() - start, cpu_seconds_of_children() - before
        print(f"{name}: {seconds:.1f} s, {cpu_seconds:.1f} CPU s", file=sys.stderr, flush=True)
        cpu.setdefault(name, []).append(count / cpu_seconds)
        return count / seconds

    return rate


def _rela(workspace: Path, *words: object) -> None:
    run_process(sys.executable, "-m", "cli", "--workspace", workspace, *words)


def _call(python: object, side: str, *words: object) -> None:
    run_process(python, "-m", "benchmarks.speed.embedding_peers", side, *words)


def _cosine(workspace: Path, plain: Path) -> float:
    import csv

    import h5py
    import numpy as np

    [ours] = workspace.glob("representations/*/representations.h5")
    with h5py.File(ours) as file:
        found = file["representations"][:].astype(np.float64)
    with (workspace / "datasets/photos/train.csv").open() as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    with h5py.File(plain) as file:
        theirs = dict(
            zip(file["paths"].asstr()[:], file["features"][:].astype(np.float64), strict=True)
        )
    expected = np.stack([theirs[Path(path).name] for path in paths])
    found, expected = found - found.mean(0), expected - expected.mean(0)
    products = (found * expected).sum(1)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float((products / norms).mean())


def _network(weights: str) -> object:
    import timm
    import torch

    network = timm.create_model(MODEL, num_classes=0)
    network.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    return network.eval()


def write_weights(path: str) -> None:
    """Random weights, the same for every side."""
    import timm
    import torch

    torch.manual_seed(0)
    torch.save(timm.create_model(MODEL).state_dict(), path)


def write_checkpoint(folder: str, weights: str, output: str) -> None:
    """LightlyTrain's checkpoint of the network, without training."""
    import lightly_train

    lightly_train.pretrain(
        out=output, data=folder, model=_network(weights), method="simclr", epochs=0, overwrite=True,
        num_workers=2, batch_size=16,
    )  # fmt: skip


def embed_with_lightly(folder: str, checkpoint: str, output: str) -> None:
    """As its documentation shows."""
    import lightly_train

    lightly_train.embed(
        out=output, data=folder, checkpoint=checkpoint, batch_size=BATCH_SIZE, overwrite=True,
        num_workers=len(os.sched_getaffinity(0)), image_size=(SIZE, SIZE),
    )  # fmt: skip


def embed_plainly(folder: str, weights: str, output: str) -> None:
    """ImageFolder, timm's transform, a DataLoader with as many workers as cores, h5py."""
    import h5py
    import numpy as np
    import timm
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    network = _network(weights)
    config = timm.data.resolve_data_config({}, model=network)
    images = ImageFolder(folder, timm.data.create_transform(**config))
    loader = DataLoader(images, BATCH_SIZE, num_workers=len(os.sched_getaffinity(0)))
    with torch.inference_mode():
        features = torch.cat([network(pixels) for pixels, _ in loader])
    with h5py.File(output, "w") as file:
        file["features"] = features.numpy().astype(np.float16)
        file["paths"] = [Path(path).name for path, _ in images.samples]


if __name__ == "__main__":
    side, *words = sys.argv[1:]
    {
        "weights": write_weights, "checkpoint": write_checkpoint, "lightly": embed_with_lightly,
        "plain": embed_plainly,
    }[side](*words)  # fmt: skip
