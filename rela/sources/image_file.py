"""One image file, opened, or the reason why it cannot be used."""

import contextlib
import io
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

# Formats that Pillow names but cannot decode, or decodes by starting another program (EPS).
NOT_PICTURES = frozenset(["BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"])
MAX_SIDE = 65_535  # pixels; sizes in a beton have 16 bits
MAX_FILE_BYTES = 1 << 30  # more than Pillow's largest image at 8 bytes per pixel
# suffixes of formats that Pillow reads by a plug-in, or in newer versions
LATER_SUFFIXES = frozenset([".avif", ".avifs", ".heic", ".heif", ".hif"])
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ORIENTATION = 0x0112
_METADATA = {
    "exif",
    "Raw profile type exif",
    "xmp",
    "XML:com.adobe.xmp",
}  # where Pillow looks for it
_NO_IMAGE = "not an image that Pillow can read"
ANIMATED = frozenset(["AVIF", "GIF", "PNG", "TIFF", "WEBP"])  # an MPO's further images are previews
_BEGINNINGS = {  # of files that are found under the names of images
    b"version https://git-lfs": "a pointer of Git LFS; `git lfs pull` fetches the image",
    b"<!doctype html": "a web page (HTML)",
    b"<html": "a web page (HTML)",
    b"<?xml": "an XML document, or SVG",
    b"<svg": "SVG, which Pillow cannot read; save it as PNG",
    b"{": "a JSON document",
    b"\x1f\x8b": "compressed by gzip",
    b"pk\x03\x04": "a zip archive",
    b"%pdf": "a PDF document; save its pages as PNG",
    b"ii*\0": "a TIFF or raw photo of a kind that Pillow cannot read; save it as PNG",
    b"mm\0*": "a TIFF or raw photo of a kind that Pillow cannot read; save it as PNG",
}
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_CHANNELS, _TIFF_FORMAT = 258, 262, 277, 339
_TIFF_KINDS = {1: "whole numbers", 2: "signed numbers", 3: "floating-point numbers"}
_DICOM_AT = 128  # bytes before its mark


class BadImageError(Exception):
    """An image that cannot be used; the message is the reason, as data sets record it."""


def read_image_file(path: Path) -> bytes:
    """All bytes of a file; raises BadImageError for a file that is unreadable or too large.

    Pipes and devices are not opened: reading one would wait or continue forever.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadImageError("not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise BadImageError(f"too large: {status.st_size:,} bytes, at most {MAX_FILE_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise BadImageError(f"cannot be read: {error.strerror}") from error


def plain_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """(height, width) in pixels of an upright JPEG in RGB or gray, None for others. Reads the header only.

    Raises BadImageError as `opened_image`, but not for files that do not begin as a JPEG.
    """
    if not content.startswith(b"\xff\xd8\xff"):
        return None
    with opened_image(content) as image:
        if image.format != "JPEG" or image.mode not in ("RGB", "L"):
            return None
        if orientation(image) != 1:  # decoders of betons ignore EXIF
            return None
        return image.height, image.width


def check_jpeg(content: bytes) -> None:
    """Find damage in a JPEG without decoding it fully; raises BadImageError as `opened_image`.

    Decoding at 1/8 of the size reads every bit, where damage shows, and skips 63 of 64 pixels.
    """
    with opened_image(content) as image:
        image.draft(None, (1, 1))
        image.load()


@contextlib.contextmanager
def opened_image(content: bytes) -> Iterator[Image.Image]:
    """The image with its header read; every error, now or in the body, becomes a BadImageError."""
    if not content:
        raise BadImageError("empty file (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with _open(content) as image:
                if image.format in NOT_PICTURES:
                    raise BadImageError(_not_an_image(content))
                check_size(image)
                yield image
    except BadImageError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadImageError("decompression bomb: more pixels than Pillow's safety limit") from error
    except UnidentifiedImageError as error:
        raise BadImageError(_not_an_image(content)) from error
    except MemoryError as error:
        raise BadImageError("too large: not enough memory to decode it") from error
    except Exception as error:  # Pillow's plugins raise errors of any type
        if found := _unreadable_tiff(content):
            raise BadImageError(found) from error
        raise BadImageError(f"damaged: {str(error).strip() or type(error).__name__}") from error


def _open(content: bytes) -> Image.Image:
    """Open with Pillow, which reads HEIC by a plug-in."""
    try:
        return Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        brand = content[8:12] if content[4:8] == b"ftyp" else b""
        if brand in _AVIF_BRANDS:
            raise BadImageError(
                "AVIF, which needs Pillow 11.3: `pip install --upgrade pillow`"
            ) from None
        if brand not in _HEIF_BRANDS:
            raise
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise BadImageError("HEIC, which needs `pip install 'rela[heif]'`") from None
    register_heif_opener()
    return Image.open(io.BytesIO(content))


def _unreadable_tiff(content: bytes) -> str:
    """What a TIFF holds that Pillow does not read, and what it reads; empty for others."""
    if content[:4] not in (b"II*\0", b"MM\0*"):
        return ""
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(content[:8])
        file = io.BytesIO(content)
        file.seek(tags.next)
        tags.load(file)
        channels, bits = int(tags.get(_TIFF_CHANNELS, 1)), int(tags[_TIFF_BITS][0])
        kind = _TIFF_KINDS[tags.get(_TIFF_FORMAT, (1,))[0]]
    except Exception:  # of any type, for a damaged or hostile file
        return ""
    is_coloured = channels <= 4 and bits <= 16 and tags.get(_TIFF_PHOTOMETRIC) != 1
    if (channels <= 2 and bits <= 32) or (is_coloured and kind == _TIFF_KINDS[1]):
        return ""
    return (
        f"a TIFF of {channels} channel{'s' * (channels > 1)} of {bits}-bit {kind}; expected gray, RGB or "
        "RGBA of 8 or 16 bits, or gray of 32-bit floats; choose channels and save it so"
    )


def _not_an_image(content: bytes) -> str:
    """What a file is that Pillow cannot open, by its first bytes."""
    if found := _unreadable_tiff(content):
        return found
    start = content[:_DICOM_AT].lstrip().lower()
    found = next((words for begin, words in _BEGINNINGS.items() if start.startswith(begin)), "")
    if content[_DICOM_AT : _DICOM_AT + 4] == b"DICM":
        found = "a DICOM file, which Pillow cannot read; save it as PNG"
    elif not any(content):
        found = f"{len(content):,} zero bytes, as of an incomplete copy"
    return f"not an image: {found}" if found else _NO_IMAGE


def has_several_frames(content: bytes) -> bool:
    """Whether it is an animation or has several pages; False if that cannot be told."""
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _open(content) as image:
            return getattr(image, "n_frames", 1) > 1
    return False


def orientation(image: Image.Image) -> int:
    """How EXIF says the image is to be turned or mirrored, 1 to 8; 1 is upright, also without a valid tag."""
    if image.format == "HEIF":  # its reader sets the tag to 1
        return image.info.get("original_orientation") or 1
    if image.format != "TIFF" and not image.info.keys() & _METADATA:
        return 1
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata; the pixels may be sound
        return 1
    return found if found in range(1, 9) else 1


def check_size(image: Image.Image) -> None:
    """Raise BadImageError for sides that do not fit in a beton."""
    if max(image.size) > MAX_SIDE:
        raise BadImageError(
            f"too large: {image.width}×{image.height} pixels, at most {MAX_SIDE} a side"
        )
