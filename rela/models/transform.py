"""The preprocessing of a network as a torchvision transform: PIL image → float32 tensor."""

from typing import TYPE_CHECKING, Any

from torchvision import transforms

from rela.errors import DataError
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
