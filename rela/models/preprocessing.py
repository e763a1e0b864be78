"""The preprocessing that a network expects: size, crop, interpolation, mean and std. Without torch."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from rela.data.views import NORMALIZE_MEAN, NORMALIZE_STD
from rela.errors import ChoiceError

SMALL_IMAGE_SIDE = 64  # images up to this size are used whole, as for CIFAR and Tiny ImageNet
_CROP_SHARE = 224 / 256


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to `resize` pixels, crop the central `crop`², scale to [0, 1], normalise.

    `mean` and `std` are per channel (RGB); `interpolation` is antialiased as in Pillow.
    """

    resize: int
    crop: int
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = NORMALIZE_MEAN
    std: tuple[float, float, float] = NORMALIZE_STD

    def at(self, image_size: int) -> "Preprocessing":
        """The same for inputs of `image_size` pixels; the crop keeps its share of the image."""
        return replace(self, resize=round(self.resize * image_size / self.crop), crop=image_size)

    def as_dict(self) -> dict[str, Any]:
        """For configurations and fingerprints."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """The inverse of `as_dict`, also for values read from JSON; raises ValueError for others."""
        mean, std = (tuple(float(x) for x in values[key]) for key in ("mean", "std"))
        sizes, known = (values["resize"], values["crop"]), ("bilinear", "bicubic")
        if not all(type(size) is int and size > 0 for size in sizes) or (len(mean), len(std)) != (
            3,
            3,
        ):
            raise ValueError("not a preprocessing: expected sizes in pixels and three channels")
        if values["interpolation"] not in known or not all(map(math.isfinite, mean + std)):
            raise ValueError(
                f"not a preprocessing: expected an interpolation of {', '.join(known)}"
            )
        return cls(int(values["resize"]), int(values["crop"]), values["interpolation"], mean, std)  # type: ignore[arg-type]


def published_preprocessing(
    name: str,
    *,
    input_size: tuple[int, int],
    crop_share: float,
    crop_mode: str,
    interpolation: str,
    mean: Sequence[float],
    std: Sequence[float],
) -> Preprocessing:
    """The preprocessing that timm or open_clip publish with the weights `name`.

    `input_size` is (height, width) in pixels, `crop_share` the crop's share of the resized side.
    Raises ChoiceError unless it is a square centre crop with bilinear or bicubic interpolation.
    """
    height, width = input_size
    wants = {
        f"{height}×{width} pixels": height == width,
        f"crop mode {crop_mode}": crop_mode in ("center", "shortest"),
        f"{interpolation} interpolation": interpolation in ("bilinear", "bicubic"),
    }
    if not all(wants.values()):
        raise ChoiceError(
            f"{name} requires {', '.join(want for want, known in wants.items() if not known)}; supported "
            "are square centre crops, bilinear or bicubic"
        )
    return Preprocessing.from_dict(
        {
            "resize": math.floor(height / crop_share),
            "crop": height,
            "interpolation": interpolation,
            "mean": mean,
            "std": std,
        }
    )


def preprocessing_for(image_size: int) -> Preprocessing:
    """The usual evaluation crop of a model trained at `image_size`: the whole image to 64, else 7/8."""
    if image_size <= SMALL_IMAGE_SIDE:
        return Preprocessing(image_size, image_size)
    return Preprocessing(round(image_size / _CROP_SHARE), image_size)
