"""The one place that touches FFCV: its C library by path, its Python structures by name."""

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.errors import UnavailableError

_REMEDY = "run `pip install ffcv==1.0.2` after `apt install libopencv-dev libturbojpeg0-dev pkg-config g++`"


@dataclass(frozen=True)
class FFCV:
    """FFCV's structures of the beton format, version 2."""

    header_type: Any
    field_type: Any
    allocation_type: Any
    version: int
    type_id_handler: Any
    metadata_type: Any
    int_field: Any
    image_field: Any
    allocator: Any


def library_path() -> Path:
    """FFCV's compiled library (JPEG decoder, resizer), without importing FFCV.

    Importing the package brings torch with it, several seconds that a worker process need not pay.
    """
    spec = importlib.util.find_spec("ffcv")
    folder = (
        Path(spec.submodule_search_locations[0])
        if spec and spec.submodule_search_locations
        else None
    )
    found = sorted(folder.glob("_libffcv*.so")) if folder else []
    if not found:
        raise UnavailableError(f"FFCV's compiled library was not found; {_REMEDY}")
    return found[0]


@functools.cache
def load() -> FFCV:
    """Import FFCV's Python side. Importing it sets torch's thread count to 1; that is undone here."""
    import numba
    import torch

    num_torch, num_numba = torch.get_num_threads(), numba.get_num_threads()
    try:
        import ffcv.fields
        import ffcv.memory_allocator
        import ffcv.types
    except ImportError as error:
        raise UnavailableError(f"FFCV cannot be imported ({error}); {_REMEDY}") from error
    finally:
        torch.set_num_threads(num_torch)
        numba.set_num_threads(num_numba)
    return FFCV(
        header_type=ffcv.types.HeaderType,
        field_type=ffcv.types.FieldDescType,
        allocation_type=ffcv.types.ALLOC_TABLE_TYPE,
        version=ffcv.types.CURRENT_VERSION,
        type_id_handler=ffcv.types.TYPE_ID_HANDLER,
        metadata_type=ffcv.types.get_metadata_type,
        int_field=ffcv.fields.IntField,
        image_field=ffcv.fields.RGBImageField,
        allocator=ffcv.memory_allocator.MemoryAllocator,
    )
