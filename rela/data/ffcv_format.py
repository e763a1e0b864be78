"""The layout of a beton, FFCV's file format, version 2.

    header · field descriptors · metadata [N] · pages of image bytes · allocation table [N]

FFCV's Python package has the same structures, but importing it takes seconds and changes torch's thread
count. A test compares the two, and every file opens in FFCV itself.
"""

import importlib.util
from pathlib import Path

import numpy as np

from rela.errors import UnavailableError

VERSION = 2
PAGE_BYTES = 1 << 23
SMALLEST_PAGE_BYTES = 1 << 16
_SAMPLES_PER_PAGE = 8
MODE_JPEG, MODE_RAW = 0, 1

HEADER = np.dtype(
    [
        ("version", "<u2"), ("num_fields", "<u2"), ("page_size", "<u4"), ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)  # fmt: skip
FIELD = np.dtype([("type_id", "<u1"), ("name", "<u1", 16), ("arguments", "<u1", 1024)], align=True)
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
METADATA = np.dtype([("image", IMAGE), ("label", "<i8"), ("index", "<i8")], align=True)

# The fields of every beton written here, with FFCV's numbers for their types.
FIELD_TYPE_IDS = {"image": 2, "label": 1, "index": 1}
METADATA_START = HEADER.itemsize + len(FIELD_TYPE_IDS) * FIELD.itemsize


def field_descriptors() -> np.ndarray:
    """Name and type of each field, which follow the header."""
    descriptors = np.zeros(len(FIELD_TYPE_IDS), FIELD)
    for descriptor, (name, type_id) in zip(descriptors, FIELD_TYPE_IDS.items(), strict=True):
        descriptor["type_id"] = type_id
        descriptor["name"][: len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
    return descriptors


def first_page(num_samples: int, page_bytes: int = PAGE_BYTES) -> int:
    """Offset in bytes of the first page: after the metadata, at a multiple of the page size."""
    return -(-(METADATA_START + num_samples * METADATA.itemsize) // page_bytes) * page_bytes


def page_bytes_for(largest_sample: int) -> int:
    """The page size of a small file: a power of two in which little is left empty."""
    wanted = max(SMALLEST_PAGE_BYTES, _SAMPLES_PER_PAGE * largest_sample)
    return min(PAGE_BYTES, 1 << (wanted - 1).bit_length())


def ffcv_library() -> Path:
    """FFCV's compiled library, which decodes JPEGs, found without importing FFCV.

    Raises UnavailableError with the command that installs it.
    """
    spec = importlib.util.find_spec("ffcv")
    folders = (spec.submodule_search_locations if spec else None) or []
    found = [path for folder in folders for path in sorted(Path(folder).glob("_libffcv*.so"))]
    if not found:
        raise UnavailableError(
            "FFCV's compiled library was not found; run `pip install ffcv==1.0.2` after "
            "`apt install libopencv-dev libturbojpeg0-dev pkg-config g++`"
        )
    return found[0]
