"""Antialiased resizing: Pillow's two passes, bit for bit, on the part of the image that is needed.

Always horizontally first, as every Pillow did before version 13. That one begins vertically where an
image is much higher than wide; rounding between the passes then differs by a few levels. A fixed order
keeps results the same whatever Pillow is installed.
"""

import numpy as np

from rela.kernels.compiled import compiled

BILINEAR, BICUBIC = 0, 1

_PRECISION_BITS = (
    22  # Pillow's fixed point for 8-bit images: 32 bits - 8 of pixel - 2 for overshoot
)


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


@compiled
def _clip8(value):
    value >>= _PRECISION_BITS
    return np.uint8(min(max(value, 0), 255))


@compiled
def resample(source, top, left, height, width, full_height, full_width, y0, x0, interpolation, out):
    """Resize the box of `source` to [full_height, full_width] and keep the window at (y0, x0).

    `out` (uint8 [h, w, 3]) is the window. Antialiased like Pillow's `Image.resize`: the box is
    what `crop` would cut, pixels outside it play no part.
    """
    out_height, out_width = out.shape[0], out.shape[1]
    x_start, x_length, x_weight = _coefficients(width, full_width, x0, out_width, interpolation)
    y_start, y_length, y_weight = _coefficients(height, full_height, y0, out_height, interpolation)
    first_row = y_start[0]
    last_row = y_start[out_height - 1] + y_length[out_height - 1]
    rows = np.empty((last_row - first_row, out_width * 3), np.uint8)
    half = np.int32(1 << (_PRECISION_BITS - 1))
    for y in range(last_row - first_row):
        line = source[top + first_row + y]
        for x in range(out_width):
            r = half
            g = half
            b = half
            start = left + x_start[x]
            for t in range(x_length[x]):
                weight = x_weight[x, t]
                r += np.int32(line[start + t, 0]) * weight
                g += np.int32(line[start + t, 1]) * weight
                b += np.int32(line[start + t, 2]) * weight
            rows[y, 3 * x] = _clip8(r)
            rows[y, 3 * x + 1] = _clip8(g)
            rows[y, 3 * x + 2] = _clip8(b)
    sums = np.empty(out_width * 3, np.int32)
    for y in range(out_height):
        sums[:] = half
        for t in range(y_length[y]):
            weight = y_weight[y, t]
            line = rows[y_start[y] - first_row + t]
            for x in range(out_width * 3):
                sums[x] += np.int32(line[x]) * weight
        flat = out[y].reshape(out_width * 3)
        for x in range(out_width * 3):
            flat[x] = _clip8(sums[x])
