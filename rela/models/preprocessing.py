"""The preprocessing that a network expects: size, crop, interpolation, mean and std. Without torch."""

import math
from collections.abc import Callable, Sequence
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

    def changed(
        self, resize: int | None, interpolation: str | None, mean: str | None, std: str | None
    ) -> "Preprocessing":
        """The same with what a user set; raises ChoiceError for what cannot be."""
        if resize is not None and resize < self.crop:
            raise ChoiceError(
                f"--resize {resize} is smaller than the input size of {self.crop} pixels; expected at "
                "least that, or a smaller --image-size"
            )
        return replace(
            self,
            resize=resize or self.resize,
            interpolation=interpolation or self.interpolation,  # type: ignore[arg-type]
            mean=self.mean if mean is None else _channels("--mean", mean, lambda x: 0 <= x <= 1),
            std=self.std if std is None else _channels("--std", std, lambda x: 0 < x <= 1),
        )

    def words(self) -> str:
        """All of it in a line."""
        mean, std = (" ".join(f"{x:.6g}" for x in values) for values in (self.mean, self.std))
        return (
            f"the shorter side resized to {self.resize} pixels ({self.interpolation}), the central "
            f"{self.crop}×{self.crop} cropped, mean {mean}, std {std}"
        )

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


def _channels(flag: str, text: str, is_fit: Callable[[float], bool]) -> tuple[float, float, float]:
    """`0.5,0.5,0.5`, or one number for all three channels, in [0, 1] units of pixels."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    values = values * 3 if len(values) == 1 else values
    if len(values) != 3 or not all(map(is_fit, values)):
        raise ChoiceError(
            f"{flag} {text}: expected one number, or three numbers for R,G,B, of pixels from 0 to 1, such as "
            "0.5,0.5,0.5"
        )
    return values[0], values[1], values[2]


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
            "are square centre crops, bilinear or bicubic: choose with --image-size, --resize and "
            "--interpolation"
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
