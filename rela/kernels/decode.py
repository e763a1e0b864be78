"""Stored bytes → pixels, through FFCV's C function (libjpeg-turbo).

Images are uint8 arrays [height, width, 3], RGB.
"""

import llvmlite.binding
import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from rela.beton_format import MODE_RAW, ffcv_library
from rela.kernels.compiled import compiled

OK, NOT_DECODABLE, WRONG_SIZE = 0, 1, 2

# Loaded by name, not by address, so that compiled code can be cached on disk.
llvmlite.binding.load_library_permanently(str(ffcv_library()))
# int imdecode(input, input_size, height, width, output, crop_height, crop_width, offset_x, offset_y,
#              scale_numerator, scale_denominator, enable_crop, horizontal_flip); 0 means success.
_imdecode = types.ExternalFunction(
    "imdecode",
    types.int32(
        types.uintp, types.uint64, types.uint32, types.uint32, types.uintp, types.uint32,
        types.uint32, types.uint32, types.uint32, types.uint32, types.uint32, types.uint8,
        types.uint8,
    ),
)  # fmt: skip


@intrinsic
def _as_pointer(typing_context, address):  # type: ignore[no-untyped-def]
    """An integer address as a pointer to bytes."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.uint8)(types.uintp), generate


@compiled
def jpeg_size(data):
    """(height, width) from a JPEG's frame header, (0, 0) if there is none."""
    position = 2
    if data.size < 4 or data[0] != 0xFF or data[1] != 0xD8:
        return 0, 0
    while position + 9 < data.size:
        if data[position] != 0xFF:
            return 0, 0
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        is_frame = 0xC0 <= marker <= 0xCF and marker != 0xC4 and marker != 0xC8 and marker != 0xCC
        if is_frame:
            height = (np.int64(data[position + 5]) << 8) | np.int64(data[position + 6])
            width = (np.int64(data[position + 7]) << 8) | np.int64(data[position + 8])
            return height, width
        position += 2 + ((np.int64(data[position + 2]) << 8) | np.int64(data[position + 3]))
    return 0, 0


@compiled
def decode(data, mode, height, width, out):
    """Decode one stored image into `out` (uint8, at least height·width·3); OK or why not.

    The frame header is compared first: a JPEG of another size would leave part of `out` as the
    image before it.
    """
    num_bytes = height * width * 3
    if mode == MODE_RAW:
        if data.size != num_bytes:
            return WRONG_SIZE
        out[:num_bytes] = data
        return OK
    found_height, found_width = jpeg_size(data)
    if found_height != height or found_width != width:
        return WRONG_SIZE
    result = _imdecode(
        data.ctypes.data, data.size, height, width, out.ctypes.data, height, width, 0, 0, 1, 1, 0, 0
    )
    return OK if result == 0 else NOT_DECODABLE


@compiled
def stored_bytes(address, pointers, sizes, row):
    """The bytes of one row of a memory-mapped beton that begins at `address`, as uint8 [n]."""
    return carray(_as_pointer(np.uintp(address + pointers[row])), (np.int64(sizes[row]),))
