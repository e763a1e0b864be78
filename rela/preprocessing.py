"""What a model wants to see: one centre crop at its own size, normalised its own way."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from rela.views import NORMALIZE_MEAN, NORMALIZE_STD

SMALL_IMAGE_SIDE = (
    64  # up to here images are used whole, as in CIFAR's and Tiny-ImageNet's protocols
)
_CROP_SHARE = 224 / 256


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to `resize` pixels, cut the central `crop`², scale to [0, 1], normalise.

    `mean` and `std` are per channel (RGB); `interpolation` is antialiased as in Pillow.
    """

    resize: int
    crop: int
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = NORMALIZE_MEAN
    std: tuple[float, float, float] = NORMALIZE_STD

    def as_dict(self) -> dict[str, Any]:
        """For configurations and fingerprints."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """The inverse of `as_dict`, also after a trip through JSON."""
        mean, std = (tuple(float(x) for x in values[key]) for key in ("mean", "std"))
        return cls(int(values["resize"]), int(values["crop"]), values["interpolation"], mean, std)  # type: ignore[arg-type]


def preprocessing_for(image_size: int) -> Preprocessing:
    """The field's evaluation crop for a model trained at `image_size`: whole below 65, else 7/8."""
    if image_size <= SMALL_IMAGE_SIDE:
        return Preprocessing(image_size, image_size)
    return Preprocessing(round(image_size / _CROP_SHARE), image_size)
