"""The preprocessing of a network as a torchvision transform: PIL image → float32 tensor."""

from typing import TYPE_CHECKING, Any

from torchvision import transforms

from rela.errors import ChoiceError, DataError, one_line
from rela.models.preprocessing import Preprocessing
from rela.sources.pixels import WHITE, opaque

if TYPE_CHECKING:
    from PIL import Image

_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")


def transform_of(wanted: Preprocessing) -> transforms.Compose:
    """PIL image → float32 [3, crop, crop], normalised: what an Embedder sees of the centre crop.

    The same pixels, too, if the data set stores the image raw; JPEG decoders and re-encoding differ by a
    few levels. The transform can be pickled, for the workers of a DataLoader.
    """
    mode: Any = transforms.InterpolationMode(wanted.interpolation)
    return transforms.Compose(
        [
            UprightRGB(),
            transforms.Resize(wanted.resize, mode),
            transforms.CenterCrop(wanted.crop),
            transforms.ToTensor(),
            transforms.Normalize(wanted.mean, wanted.std),
        ]
    )


def preprocessing_of(transform: Any) -> Preprocessing:
    """What a torchvision transform (v1 or v2), or one of timm's or open_clip's, does to an image.

    It must resize the shorter side, crop the centre, scale to [0, 1] and normalise, in this order; without
    Normalize, mean is 0 and std 1. A `Preprocessing` is returned as it is. Raises ChoiceError for anything
    else, which a cache could not reproduce.
    """
    if isinstance(transform, Preprocessing):
        return transform
    if hasattr(transform, "resize_size") and hasattr(transform, "crop_size"):  # a preset of weights
        transform = transforms.Compose(
            [
                transforms.Resize(
                    transform.resize_size, transform.interpolation, antialias=transform.antialias
                ),
                transforms.CenterCrop(transform.crop_size),
                transforms.ToTensor(),
                transforms.Normalize(transform.mean, transform.std),
            ]
        )
    found: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    steps = list(getattr(transform, "transforms", [transform]))
    order = ["Resize", "CenterCrop", "Normalize"]
    for step in steps:
        kind = type(step).__name__
        try:
            if kind in order:
                order = order[order.index(kind) + 1 :]
                found |= _STEPS[kind](step)
            elif kind == "ToDtype":
                _converted(step)
            elif kind not in _SCALING and getattr(step, "__name__", kind) not in _TO_RGB:
                raise ValueError(kind)
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise _not_reproducible(step, str(error)) from error
    try:
        if found["resize"] < found["crop"]:
            raise ValueError("the crop is larger than the resized image")
        return Preprocessing.from_dict(found)
    except (ValueError, KeyError) as error:
        raise _not_reproducible(
            transform, f"found {', '.join(type(s).__name__ for s in steps)}"
        ) from error


def _converted(step: Any) -> dict[str, Any]:
    if getattr(step, "scale", True) is not True or not step.dtype.is_floating_point:
        raise ValueError("it must scale to [0, 1]")
    return {}


_SCALING = ("ToTensor", "PILToTensor", "ToImage", "ConvertImageDtype", "MaybeToTensor")
_TO_RGB = ("UprightRGB", "_convert_to_rgb", "ToRGB")


def _resized(step: Any) -> dict[str, Any]:
    size = (
        step.size if isinstance(step.size, int) else step.size[0] if len(step.size) == 1 else None
    )
    if size is None or getattr(step, "max_size", None) is not None or step.antialias is False:
        raise ValueError("it must resize the shorter side to one size, antialiased")
    return {"resize": size, "interpolation": step.interpolation.value}


def _cropped(step: Any) -> dict[str, Any]:
    height, width = (step.size, step.size) if isinstance(step.size, int) else step.size
    if height != width:
        raise ValueError("the crop must be square")
    return {"crop": height}


def _normalised(step: Any) -> dict[str, Any]:
    return {key: tuple(map(float, getattr(step, key))) for key in ("mean", "std")}


_STEPS = {"Resize": _resized, "CenterCrop": _cropped, "Normalize": _normalised}


def _not_reproducible(step: Any, reason: str) -> ChoiceError:
    return ChoiceError(
        f"preprocessing: {one_line(repr(step))} cannot be reproduced ({one_line(reason)}); expected "
        "Resize(SHORTER_SIDE), CenterCrop(SIDE), ToTensor(), Normalize(mean, std), or "
        "rela.models.preprocessing.Preprocessing"
    )


class UprightRGB:
    """Makes an image as `rela convert` stores it: turned as its EXIF says, transparent pixels on white."""

    def __call__(self, image: "Image.Image") -> "Image.Image":
        """Raises DataError for more than 8 bits, whose range depends on the data set."""
        from PIL import Image, ImageOps

        if image.mode not in _EIGHT_BITS:
            raise DataError(f"expected an image of 8 bits a channel, found mode {image.mode}")
        return Image.fromarray(opaque(ImageOps.exif_transpose(image), WHITE)[0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
