"""Stage 1 of `rela train` against LightlyTrain's distillation: images per CPU second of whole epochs.

The same images, student (ResNet-18 at 64 px) and teacher, an untrained ResNet-18. `rela` has cached the
teacher's features and takes two views of each image; LightlyTrain takes one and runs the teacher on it.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.speed.comparison import Comparison, compare
from benchmarks.speed.peer_environment import (
    LIGHTLY_TRAIN,
    environment,
    per_cpu_second,
    run_process,
)
from benchmarks.speed.photos import write_photos
from rela.training.precision import has_bf16

MODEL, SIZE, BATCH_SIZE = "resnet18", 64, 64
COUNT, SIDE = 1024, 96  # images, and their pixels a side
FEW, MANY = 1, 4
PRIOR = f"random:{MODEL}@{SIZE}px"


def run(rounds: int, scratch: Path) -> list[Comparison]:
    """Images per CPU second."""
    home = scratch / "peers"
    python, workspace = environment(home / "environment", LIGHTLY_TRAIN), home / "workspace-stage1"
    photos = write_photos(home / f"photos-{SIDE}", COUNT, SIDE, SIDE)
    _rela(workspace, "convert", photos, "--name", "photos", "--val-fraction", "0")
    _rela(workspace, "embed", "photos", "--prior", PRIOR)

    def ours(precision: str) -> Callable[[], float]:
        def train(epochs: int) -> None:
            shutil.rmtree(workspace / "runs", ignore_errors=True)
            _rela(
                workspace, "train", "photos", "--method", "none", "--model", MODEL, "--image-size", SIZE,
                "--batch-size", BATCH_SIZE, "--epochs", epochs, "--precision", precision,
            )  # fmt: skip

        return lambda: per_cpu_second(COUNT, train, FEW, MANY)

    def theirs(precision: str) -> Callable[[], float]:
        def distil(epochs: int) -> None:
            program = "-m", "benchmarks.speed.stage1_peer"
            run_process(python, *program, photos, epochs, home / "distilled", precision)

        return lambda: per_cpu_second(COUNT, distil, FEW, MANY)

    precisions = ("bf16-mixed", "32-true") if has_bf16() else ("32-true",)
    sides = {
        f"{name}, {precision}": side(precision)
        for name, side in (("rela", ours), ("LightlyTrain", theirs))
        for precision in precisions
    }
    title = f"stage 1, {MODEL} at {SIZE} px, batches of {BATCH_SIZE}, by CPU seconds"
    wanted = {f"LightlyTrain, {precision}": 1.3 for precision in precisions}
    return [compare(title, "img/s", sides, rounds, wanted)]


def _rela(workspace: Path, *words: object) -> None:
    run_process(sys.executable, "-m", "cli", "--workspace", workspace, *words)


def distil(images: str, epochs: str, output: str, precision: str) -> None:
    """LightlyTrain's method, which knows DINOv2 and DINOv3 as teachers only, with another one."""
    import lightly_train
    import torch
    from lightly_train._methods.distillation import distillation
    from torchvision.models import resnet18

    torch.manual_seed(0)
    teacher: Any = resnet18()
    teacher.fc, teacher.embed_dim = torch.nn.Identity(), 512
    teacher.eval().requires_grad_(False)
    vars(distillation)["get_teacher"] = lambda *_, **__: teacher
    options: dict[str, Any] = {
        "transform_args": {"image_size": (SIZE, SIZE)},
        "precision": precision,
    }
    lightly_train.pretrain(
        out=output, data=images, model=f"torchvision/{MODEL}", method="distillationv1",
        epochs=int(epochs), batch_size=BATCH_SIZE, num_workers=1, accelerator="cpu", devices=1,
        overwrite=True, **options,
    )  # fmt: skip


if __name__ == "__main__":
    distil(*sys.argv[1:])
