"""Antialiased resizing: Pillow's two passes, bit for bit, on the part of the image that is needed.

Always horizontally first, as every Pillow did before version 13. That one begins vertically where an
image is much higher than wide; rounding between the passes then differs by a few levels. A fixed order
keeps results the same whatever Pillow is installed.
"""

import llvmlite.ir as ir
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rela.data.kernels.compiled import compiled, copy_bytes

BILINEAR, BICUBIC = 0, 1

_PRECISION_BITS = (
    22  # Pillow's fixed point for 8-bit images: 32 bits - 8 of pixel - 2 for overshoot
)
_HALF = 1 << (_PRECISION_BITS - 1)  # rounding


@compiled
def _filter_value(x, interpolation):
    x = abs(x)
    if interpolation == BILINEAR:
        return 1.0 - x if x < 1.0 else 0.0
    a = -0.5  # Keys' cubic, as Pillow and torchvision's antialiased resize have it
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return 0.0


@compiled
def _coefficients(in_size, out_size, first, count, interpolation):
    """Taps of output positions [first, first + count): starts, lengths, fixed-point weights."""
    scale = in_size / out_size
    filter_scale = max(scale, 1.0)
    support = (1.0 if interpolation == BILINEAR else 2.0) * filter_scale
    num_taps = int(np.ceil(support)) * 2 + 1
    starts = np.empty(count, np.int64)
    lengths = np.empty(count, np.int64)
    weights = np.zeros((count, num_taps), np.int32)
    row = np.empty(num_taps, np.float64)
    for k in range(count):
        center = (first + k + 0.5) * scale
        start = max(0, int(center - support + 0.5))
        end = min(in_size, int(center + support + 0.5))
        total = 0.0
        for t in range(end - start):
            row[t] = _filter_value((t + start - center + 0.5) / filter_scale, interpolation)
            total += row[t]
        for t in range(end - start):
            value = row[t] / total * (1 << _PRECISION_BITS)
            weights[k, t] = int(value - 0.5) if value < 0 else int(value + 0.5)
        starts[k], lengths[k] = start, end - start
    return starts, lengths, weights


def _clip(builder, sums):
    """IR: rounded fixed point → 8 bits; of one int32, or of each in a vector."""

    def constant(number):
        vector = isinstance(sums.type, ir.VectorType)
        return ir.Constant(sums.type, [number] * sums.type.count if vector else number)

    value = builder.ashr(sums, constant(_PRECISION_BITS))
    for sign, limit in ((">", constant(0)), ("<", constant(255))):
        value = builder.select(builder.icmp_signed(sign, value, limit), value, limit)
    byte = ir.IntType(8)
    whole = ir.VectorType(byte, value.type.count) if isinstance(value.type, ir.VectorType) else byte
    return builder.trunc(value, whole)


@intrinsic
def _clip8(typing_context, value):
    """int32 fixed point → uint8; Numba's own arithmetic would widen to 64 bits."""

    def generate(context, builder, signature, arguments):
        return _clip(builder, arguments[0])

    return types.uint8(types.int32), generate


@intrinsic
def _weigh_pixel(typing_context, pixels, start, weights, first, count, out, to):
    """out[to : to + 4] = the sum over t < count of weights[first + t] · pixels[start + 3·t :][:4].

    `pixels` and `out` uint8, `weights` int32 fixed point, all flat. One vector of four lanes serves
    the three channels; the fourth lane is the next pixel's and means nothing.
    """

    def generate(context, builder, signature, arguments):
        _, start, _, first, count, _, to = arguments
        int32 = ir.IntType(32)
        lanes, four_bytes = ir.VectorType(int32, 4), ir.VectorType(ir.IntType(8), 4)
        undefined, zeros = ir.Constant(lanes, ir.Undefined), ir.Constant(lanes, [0] * 4)

        def element(number, index):
            array = context.make_array(signature.args[number])(context, builder, arguments[number])
            return builder.gep(array.data, [index])

        def pixel(number, index):
            return builder.bitcast(element(number, index), four_bytes.as_pointer())

        total = cgutils.alloca_once_value(builder, ir.Constant(lanes, [_HALF] * 4))
        with cgutils.for_range(builder, count) as loop:
            offset = builder.mul(loop.index, context.get_constant(types.intp, 3))
            values = builder.load(pixel(0, builder.add(start, offset)), align=1)
            weight = builder.load(element(2, builder.add(first, loop.index)))
            weight = builder.insert_element(undefined, weight, int32(0))
            weight = builder.shuffle_vector(weight, undefined, zeros)
            product = builder.mul(builder.zext(values, lanes), weight)
            builder.store(builder.add(builder.load(total), product), total)
        builder.store(_clip(builder, builder.load(total)), pixel(5, to), align=1)
        return context.get_dummy_value()

    index = types.intp
    return types.void(pixels, index, weights, index, index, out, index), generate


@compiled
def _shrink_row(line, starts, weights, taps_apart, num_taps, flip, out, to):
    """One row of the horizontal pass: from `line` to out[to:], backwards if `flip`."""
    for x in range(starts.size):
        k = starts.size - 1 - x if flip else x
        _weigh_pixel(line, starts[k], weights, k * taps_apart, num_taps, out, to + 3 * x)


@compiled
def resample(
    source, top, left, height, width, full_height, full_width, y0, x0, interpolation, out, flip=False
):  # fmt: skip
    """Resize the box of `source` to [full_height, full_width] and keep the window at (y0, x0).

    `out` (uint8 [h, w, 3]) is the window, mirrored left to right if `flip`. Antialiased like Pillow's
    `Image.resize`: the box is what `crop` would cut, pixels outside it play no part.
    """
    out_height, out_width = out.shape[0], out.shape[1]
    x_start, x_length, x_weight = _coefficients(width, full_width, x0, out_width, interpolation)
    y_start, y_length, y_weight = _coefficients(height, full_height, y0, out_height, interpolation)
    first_row = y_start[0]
    last_row = y_start[out_height - 1] + y_length[out_height - 1]
    num_taps, taps_apart = x_length.max(), x_weight.shape[1]
    x_start *= 3
    x_weight = x_weight.reshape(-1)
    row_length = out_width * 3
    # the last vector of a row is a byte too long, and what lies behind the box has no weight
    rows = np.empty((last_row - first_row) * row_length + 1, np.uint8)
    line = np.zeros((width + num_taps + 2) * 3, np.uint8)
    pixels = source.reshape(-1)
    for y in range(last_row - first_row):
        begin = ((top + first_row + y) * source.shape[1] + left) * 3
        copy_bytes(pixels, begin, width * 3, line)
        to = y * row_length
        # known numbers of taps compile to straight code, twice as fast
        if num_taps <= 2:
            _shrink_row(line, x_start, x_weight, taps_apart, 2, flip, rows, to)
        elif num_taps == 3:
            _shrink_row(line, x_start, x_weight, taps_apart, 3, flip, rows, to)
        elif num_taps == 4:
            _shrink_row(line, x_start, x_weight, taps_apart, 4, flip, rows, to)
        elif num_taps == 5:
            _shrink_row(line, x_start, x_weight, taps_apart, 5, flip, rows, to)
        else:
            _shrink_row(line, x_start, x_weight, taps_apart, num_taps, flip, rows, to)
    sums = np.empty(row_length, np.int32)
    out_rows = out.reshape(out_height, row_length)
    for y in range(out_height):
        sums[:] = _HALF
        for t in range(y_length[y]):
            weight = y_weight[y, t]
            row = rows[(y_start[y] - first_row + t) * row_length :]
            for x in range(row_length):
                sums[x] += np.int32(row[x]) * weight
        out_row = out_rows[y]
        for x in range(row_length):
            out_row[x] = _clip8(sums[x])
