"""Stored bytes → pixels, through FFCV's C function (libjpeg-turbo).

Images are uint8 arrays [height, width, 3], RGB.
"""

import llvmlite.binding
import numpy as np
from numba import carray, types

from rela.data.ffcv_format import MODE_RAW, ffcv_library
from rela.data.kernels.compiled import as_pointer, compiled, copy_bytes

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
        copy_bytes(data, 0, num_bytes, out)
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
    return carray(as_pointer(np.uintp(address + pointers[row])), (np.int64(sizes[row]),))


@compiled
def stored_image(address, pointers, sizes, modes, heights, widths, row, scratch):
    """(status, uint8 [height, width, 3]) of one row; JPEGs are decoded into `scratch`.

    Raw pixels are not copied: the image is the mapping itself, which must not be written.
    """
    height, width = np.int64(heights[row]), np.int64(widths[row])
    num_bytes = height * width * 3
    data = stored_bytes(address, pointers, sizes, row)
    if modes[row] == MODE_RAW and data.size == num_bytes:
        return OK, data.reshape(height, width, 3)
    status = decode(data, modes[row], height, width, scratch)
    return status, scratch[:num_bytes].reshape(height, width, 3)
