"""One conversion in a process of its own, as light as that of the command; prints its seconds.

`python -m benchmarks.speed.converters rela|ffcv FOLDER OUTPUT NUM_WORKERS [MAX_SIDE]`
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path


def prepare_rela(
    folder: Path, output: Path, num_workers: int, max_side: int | None
) -> Callable[[], object]:
    """What `rela convert` does: check, digest, store, digest the result, make it durable."""
    from rela.stages.convert import convert
    from rela.stages.requests import Convert
    from rela.stages.settings import ConvertSettings
    from rela.stages.workspace.workspace import Workspace

    settings = ConvertSettings(max_side=max_side)
    return lambda: convert(
        Workspace(output), Convert(folder, workers=num_workers, **vars(settings))
    )


def prepare_ffcv(
    folder: Path, output: Path, num_workers: int, max_side: int | None
) -> Callable[[], object]:
    """FFCV's writer as its documentation shows it."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    output.mkdir()
    fields = {
        "image": RGBImageField(write_mode="jpg", max_resolution=max_side, jpeg_quality=90),
        "label": IntField(),
    }
    writer = DatasetWriter(str(output / "train.beton"), fields, num_workers=num_workers)
    return lambda: writer.from_indexed_dataset(ImageFolder(str(folder)))


if __name__ == "__main__":
    side, folder, output, num_workers, *max_side = sys.argv[1:]
    prepare = {"rela": prepare_rela, "ffcv": prepare_ffcv}[side]
    run = prepare(
        Path(folder), Path(output), int(num_workers), int(max_side[0]) if max_side else None
    )
    start = time.perf_counter()
    run()
    print(time.perf_counter() - start)
