"""Two augmented views per image against other loaders: images per CPU second.

From JPEGs to normalised float tensors; the views are BYOL's, with the same distributions as far as each
library has them (DALI makes gray by a saturation of 0). Every side is a process with as many workers as
cores. PEERS are installed from PyPI in an environment below the scratch folder.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.speed.comparison import Comparison, compare
from benchmarks.speed.peer_environment import environment, per_cpu_second, run_process
from benchmarks.speed.photos import beton_of, write_photos
from rela.data.views import NORMALIZE_MEAN, NORMALIZE_STD, View
from rela.methods.byol import byol_views

PEERS = ("albumentations==2.0.8", "spdl==0.8.0", "spdl_io==0.8.0", "nvidia-dali-cuda120==2.4.0")
COUNT, HEIGHT, WIDTH = 512, 375, 500
SIZE, BATCH_SIZE = 224, 64
FEW, MANY = 1, 4  # epochs
VIEWS = byol_views(SIZE)


def run(rounds: int, scratch: Path) -> list[Comparison]:
    """`rela`, then the others."""
    folder = write_photos(scratch / f"photos-{HEIGHT}x{WIDTH}", COUNT, HEIGHT, WIDTH)
    python = environment(scratch / "peers" / "loading", *PEERS)
    beton = beton_of(folder, "jpg").path

    def side(name: str, source: Path) -> Callable[[], float]:
        def load(epochs: int) -> None:
            run_process(python, "-m", "benchmarks.speed.loading_peers", name, source, epochs)

        return lambda: per_cpu_second(COUNT, load, FEW, MANY)

    sides = {name: side(name, beton if name == "rela" else folder) for name in LOADERS}
    title = f"JPEGs of {HEIGHT}×{WIDTH} → two views of {SIZE}, by CPU seconds"
    return [compare(title, "images/s", sides, rounds)]


def rela(source: Path) -> Callable[[], Iterator[Any]]:
    """The loader of `rela train`, and the normalisation that training does on its device."""
    from rela.data.beton.reader import open_beton
    from rela.data.loader import ViewLoader
    from rela.models.normalization import Normalization

    loader, normalization = ViewLoader(open_beton(source), VIEWS, BATCH_SIZE), Normalization()
    return lambda: ([normalization(view) for view in batch["views"]] for batch in loader)


def pil(source: Path) -> Callable[[], Iterator[Any]]:
    """ImageFolder, torchvision's transforms, a DataLoader."""
    from torchvision.datasets import ImageFolder

    from benchmarks.speed.torchvision_views import Views, loader_of

    loader = loader_of(ImageFolder(str(source), Views(VIEWS)), BATCH_SIZE)
    return lambda: iter(loader)


def albumentations(source: Path) -> Callable[[], Iterator[Any]]:
    """OpenCV, Albumentations, a DataLoader."""
    import cv2
    from torchvision.datasets import ImageFolder

    from benchmarks.speed.torchvision_views import loader_of

    cv2.setNumThreads(0)  # as its documentation advises for workers
    transforms = [_albumentations(view) for view in VIEWS]

    def read(path: str) -> Any:
        return cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)

    def views(image: Any) -> list[Any]:
        return [transform(image=image)["image"] for transform in transforms]

    loader = loader_of(ImageFolder(str(source), views, loader=read), BATCH_SIZE)
    return lambda: iter(loader)


def spdl(source: Path) -> Callable[[], Iterator[Any]]:
    """SPDL's threads and decoder, Albumentations, which release the interpreter lock for most of the time."""
    import cv2
    import spdl.io
    import torch
    from spdl.pipeline import PipelineBuilder

    cv2.setNumThreads(0)
    transforms = [_albumentations(view) for view in VIEWS]
    paths = [str(path) for path in source.rglob("*") if path.is_file()]

    def load(path: str) -> list[Any]:
        image = spdl.io.to_numpy(spdl.io.load_image(path))
        return [transform(image=image)["image"] for transform in transforms]

    def stack(images: list[list[Any]]) -> list[Any]:
        return [torch.stack(view) for view in zip(*images, strict=True)]

    def epoch() -> Iterator[Any]:
        workers = len(os.sched_getaffinity(0))
        builder = PipelineBuilder().add_source(paths).pipe(load, concurrency=workers)
        builder = builder.aggregate(BATCH_SIZE, drop_last=True).pipe(stack).add_sink(2)
        with (pipeline := builder.build(num_threads=workers)).auto_stop():
            yield from pipeline

    return epoch


def dali(source: Path) -> Callable[[], Iterator[Any]]:
    """NVIDIA DALI's pipeline for CPUs."""
    from nvidia.dali import fn, pipeline_def, types

    def chance(probability: float) -> Any:
        return fn.random.coin_flip(probability=probability, dtype=types.BOOL)

    def between(middle: float, width: float) -> Any:
        return fn.random.uniform(range=(middle - width, middle + width))

    @pipeline_def(
        batch_size=BATCH_SIZE, num_threads=len(os.sched_getaffinity(0)), device_id=None,
        enable_conditionals=True,
    )  # fmt: skip
    def pipeline() -> tuple[Any, ...]:
        files, _ = fn.readers.file(
            file_root=str(source), random_shuffle=True, pad_last_batch=True, name="files"
        )
        images = fn.decoders.image(files)
        found = []
        for view in VIEWS:
            image = fn.random_resized_crop(
                images, size=view.size, random_area=view.scale, random_aspect_ratio=view.ratio
            )
            if chance(view.jitter_probability):
                image = fn.color_twist(
                    image, brightness=between(1, view.brightness), contrast=between(1, view.contrast),
                    saturation=between(1, view.saturation), hue=between(0, 360 * view.hue),
                )  # fmt: skip
            if chance(view.gray_probability):
                image = fn.saturation(image, saturation=0.0)
            if view.blur_probability:  # noqa: SIM102 - not an `and`: only chances are in the graph
                if chance(view.blur_probability):
                    image = fn.gaussian_blur(image, sigma=fn.random.uniform(range=view.sigma))
            if view.solarize_probability:  # noqa: SIM102
                if chance(view.solarize_probability):
                    is_light = image >= 128
                    inverted = types.Constant(255).uint8() - image
                    image = fn.cast(
                        is_light * inverted + (is_light ^ True) * image, dtype=types.UINT8
                    )
            found.append(
                fn.crop_mirror_normalize(
                    image, mirror=fn.random.coin_flip(probability=view.flip_probability),
                    mean=[255 * mean for mean in NORMALIZE_MEAN],
                    std=[255 * std for std in NORMALIZE_STD],
                )
            )  # fmt: skip
        return tuple(found)

    built = pipeline()
    built.build()
    return lambda: (built.run() for _ in range(COUNT // BATCH_SIZE))


def _albumentations(view: View) -> Any:
    import albumentations as library
    from albumentations.pytorch import ToTensorV2

    return library.Compose(
        [
            library.RandomResizedCrop((view.size, view.size), view.scale, view.ratio),
            library.HorizontalFlip(p=view.flip_probability),
            library.ColorJitter(
                *(_around(1, width) for width in (view.brightness, view.contrast, view.saturation)),
                _around(0, view.hue), p=view.jitter_probability,
            ),
            library.ToGray(p=view.gray_probability),
            library.GaussianBlur(blur_limit=0, sigma_limit=view.sigma, p=view.blur_probability),
            library.Solarize((0.5, 0.5), p=view.solarize_probability),
            library.Normalize(NORMALIZE_MEAN, NORMALIZE_STD),
            ToTensorV2(),
        ]
    )  # fmt: skip


def _around(middle: float, width: float) -> tuple[float, float]:
    return middle - width, middle + width


LOADERS = {
    "rela": rela, "albumentations": albumentations, "spdl": spdl, "dali": dali, "pil": pil,
}  # fmt: skip


def main(name: str, source: str, epochs: str) -> None:
    """Load that many epochs; in one thread what follows the loader."""
    import torch

    torch.set_num_threads(1)
    epoch = LOADERS[name](Path(source))
    for _ in range(int(epochs)):
        count = sum(1 for _ in epoch())
        assert count == COUNT // BATCH_SIZE, f"{count} batches"


if __name__ == "__main__":
    main(*sys.argv[1:])
