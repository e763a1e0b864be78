"""The same student, distilled online: LightlyTrain with the teacher in every step.

    pip install lightly-train==0.18.*   (in an environment of its own, with rela and timm)
    python -m benchmarks.online_distillation --images images/fashion --weights lite0.pth \\
        --epochs 5 --output rival
    rela eval --dataset fashion --prior file:rival/exported_models/exported_last.pt \\
        --arch timm:test_resnet --image-size 28

LightlyTrain 0.18 knows DINOv2 and DINOv3 as teachers only. Here its teacher is EfficientNet-Lite0 at 64
pixels, as in benchmarks.cost_to_accuracy; all else is its method "distillationv1", with AdamW and crops
that suit small images. Prints what it took, loading and child processes included: choose --epochs so that
it takes what `rela` took (`cost.json`).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from rela.pipeline.spent import Spent

TEACHER, STUDENT = "tf_efficientnet_lite0", "test_resnet"
TEACHER_SIZE = 64
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Teacher(nn.Module):
    """Views as LightlyTrain normalises them, [B, 3, S, S] → features [B, 1280] of the teacher."""

    embed_dim = 1280

    def __init__(self, weights: Path) -> None:
        super().__init__()
        import timm

        self.backbone = timm.create_model(TEACHER, num_classes=0)
        known = torch.load(weights, map_location="cpu", weights_only=True)
        missing = self.backbone.load_state_dict(known, strict=False).missing_keys
        if missing:
            raise SystemExit(f"{weights} lacks {missing[0]}")
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, views: Tensor) -> Tensor:
        """Undo ImageNet's normalisation; the teacher was trained with mean and std 0.5."""
        images = views * self.std + self.mean
        larger = interpolate(images, (TEACHER_SIZE, TEACHER_SIZE), mode="bicubic")
        features: Tensor = self.backbone(2 * larger.clamp(0, 1) - 1)
        return features


def main() -> None:
    """Train, export, and print the cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="class folders in train/")
    parser.add_argument("--weights", type=Path, required=True, help="EfficientNet-Lite0")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=28)
    parser.add_argument(
        "--lr", type=float, default=3e-3, help="LightlyTrain's own: 5e-4 × √(batch/1536)"
    )
    parser.add_argument("--min-scale", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()

    import lightly_train
    from lightly_train._methods.distillation import distillation

    teacher = Teacher(chosen.weights)
    vars(distillation)["get_teacher"] = lambda *_, **__: teacher
    begin = Spent.now()
    options: dict[str, Any] = {
        "method_args": {"lr_scale_method": "sqrt", "reference_batch_size": chosen.batch_size},
        "optim_args": {"lr": chosen.lr},
        "transform_args": {
            "image_size": (chosen.image_size, chosen.image_size),
            "random_resize": {"min_scale": chosen.min_scale},
            "gaussian_blur": None,
        },
    }
    lightly_train.pretrain(
        out=str(chosen.output), data=str(chosen.images / "train"),
        model=f"timm/{STUDENT}", method="distillationv1", epochs=chosen.epochs,
        batch_size=chosen.batch_size, num_workers=1, seed=chosen.seed, optim="adamw",
        accelerator="cpu", devices=1, precision="32-true", overwrite=True, **options,
    )  # fmt: skip
    spent = Spent.now() - begin
    record = {"seconds": round(spent.seconds, 1), "cpu_seconds": round(spent.cpu_seconds, 1)}
    print(json.dumps({**vars(chosen), **record}, default=str))


if __name__ == "__main__":
    main()
