"""Checks that must be tried: importing libraries, decoding an image, computing on a GPU.

Each runs in its own process, because broken libraries may crash. It prints its findings as JSON,
[what, state, found, remedy] each, on the last line.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

Finding = tuple[str, str, str, str]
_REINSTALL_TORCH = "pip install --upgrade torch torchvision  # matching versions"
_LARGEST_ERROR = 24.0  # of a smooth picture's pixels after JPEG


def probe_torch() -> list[Finding]:
    """torch, and whether it can compute on each GPU."""
    import torch

    found: list[Finding] = [("torch", "ok", str(torch.__version__), "")]
    if not torch.cuda.is_available():
        built = torch.version.cuda
        words = f"none that torch {'(CUDA ' + built + ')' if built else '(only for CPUs)'} can use"
        return [*found, ("GPU", "absent", words, "")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        ones = torch.ones(8, 8, device=f"cuda:{index}")
        if float((ones @ ones).sum()) != 512:
            raise RuntimeError(f"GPU {index} computes a wrong product")
        words = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
        found.append((f"GPU {index}", "ok", words, ""))
    return found


def probe_torchvision() -> list[Finding]:
    """torchvision, whose import fails if it was built for another torch."""
    import torch
    import torchvision

    torchvision.ops.nms(torch.zeros(1, 4), torch.ones(1), 0.5)
    return [("torchvision", "ok", torchvision.__version__, "")]


def probe_training() -> list[Finding]:
    """Lightning and lightly."""
    from importlib.metadata import version

    from lightly.loss import NegativeCosineSimilarity
    from pytorch_lightning import Trainer

    assert issubclass(Trainer, object) and callable(NegativeCosineSimilarity())
    words = f"Lightning {version('pytorch-lightning')}, lightly {version('lightly')}"
    return [("training", "ok", words, "")]


def probe_decoder() -> list[Finding]:
    """Write an image to a beton as JPEG, and decode it with FFCV's decoder."""
    import numpy as np
    from PIL import Image

    from rela.data.beton.encoding import Encoding
    from rela.data.beton.reader import open_beton
    from rela.data.beton.writer import write_beton
    from rela.data.loader import CenterCropLoader
    from rela.sources.source import Sample

    y, x = np.mgrid[0:64, 0:64]
    picture = np.stack([4 * y, 4 * x, 255 - 2 * (x + y)], axis=2).clip(0, 255).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(picture).save(Path(folder) / "picture.png")
        path = Path(folder) / "one.beton"
        write_beton(path, Path(folder), [Sample("picture.png", 0)], Encoding("jpg"), num_workers=1)
        loader = CenterCropLoader(open_beton(path), [np.array([0])], 64, 64, 2, num_threads=1)
        decoded = next(iter(loader))[1][0].permute(1, 2, 0).numpy()
    error = np.abs(decoded.astype(int) - picture).max()
    if error > _LARGEST_ERROR:
        raise RuntimeError(f"a decoded image is {error} levels off")
    return [("decoder", "ok", f"a JPEG round trip is {error} of 255 levels off", "")]


PROBES: dict[str, tuple[Callable[[], list[Finding]], str]] = {
    "torch": (probe_torch, _REINSTALL_TORCH),
    "torchvision": (probe_torchvision, _REINSTALL_TORCH),
    "training": (probe_training, "pip install --upgrade pytorch-lightning lightly"),
    "decoder": (
        probe_decoder,
        "scripts/setup, or pip install --force-reinstall --no-cache-dir ffcv",
    ),
}


def main(name: str) -> None:
    """Run one probe and print its findings; an exception is a finding, too."""
    probe, remedy = PROBES[name]
    try:
        found = probe()
    except BaseException as error:
        line = (str(error).strip().splitlines() or ["no message"])[0]
        found = [(name, "missing", f"{type(error).__name__}: {line[:200]}", remedy)]
    print(f"\n{json.dumps(found)}")


if __name__ == "__main__":
    main(sys.argv[1])
