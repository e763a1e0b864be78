"""Whole samples: stored image → all views of a training step, or → the input of a prior."""

import numpy as np

from rela.kernels.colour import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    gaussian_blur,
    solarize,
    to_gray,
)
from rela.kernels.compiled import compiled
from rela.kernels.decode import OK, decode, stored_bytes
from rela.kernels.draws import (
    BRIGHTNESS,
    CONTRAST,
    FLIP,
    GRAY,
    HEIGHT,
    HUE,
    LEFT,
    ORDER,
    PARAMETER_COLUMNS,
    SATURATION,
    SIGMA,
    SOLARIZE,
    SPEC_SIZE,
    TOP,
    WIDTH,
    draw_key,
    draw_parameters,
)  # fmt: skip
from rela.kernels.resample import BILINEAR, resample


@compiled
def _jitter(image, parameters):
    """The four colour operations in the drawn order: digit by digit of a factorial number."""
    remaining = np.array([0, 1, 2, 3])
    code = int(parameters[ORDER])
    for left in range(4, 0, -1):
        chosen = code % left
        code //= left
        operation = remaining[chosen]
        remaining[chosen : left - 1] = remaining[chosen + 1 : left].copy()
        if operation == 0:
            adjust_brightness(image, parameters[BRIGHTNESS])
        elif operation == 1:
            adjust_contrast(image, parameters[CONTRAST])
        elif operation == 2:
            adjust_saturation(image, parameters[SATURATION])
        else:
            adjust_hue(image, parameters[HUE])


@compiled
def render_view(source, parameters, out):
    """Crop, resize, flip, jitter, gray, blur, solarize: the drawn view of `source` into `out`."""
    size = out.shape[0]
    resample(
        source, int(parameters[TOP]), int(parameters[LEFT]), int(parameters[HEIGHT]),
        int(parameters[WIDTH]), size, size, 0, 0, BILINEAR, out,
    )  # fmt: skip
    if parameters[FLIP]:
        for y in range(size):
            for x in range(size // 2):
                for c in range(3):
                    other = out[y, size - 1 - x, c]
                    out[y, size - 1 - x, c] = out[y, x, c]
                    out[y, x, c] = other
    if parameters[ORDER] >= 0:
        _jitter(out, parameters)
    if parameters[GRAY]:
        to_gray(out)
    if parameters[SIGMA] > 0:
        gaussian_blur(out, parameters[SIGMA])
    if parameters[SOLARIZE]:
        solarize(out)


@compiled
def load_views(
    address, pointers, sizes, modes, heights, widths, rows, seed, epoch, specs, out, offsets, first,
    status,
):  # fmt: skip
    """Decode each row once and render all its views.

    View v of rows[k] is written to `out` (flat uint8) at offsets[v] + (first + k)·size_v²·3;
    status[first + k] tells whether the image could be decoded.
    """
    scratch = np.empty(_largest(heights, widths, rows), np.uint8)
    parameters = np.empty(PARAMETER_COLUMNS, np.float64)
    for k in range(rows.size):
        row = rows[k]
        height, width = np.int64(heights[row]), np.int64(widths[row])
        data = stored_bytes(address, pointers, sizes, row)
        status[first + k] = decode(data, modes[row], height, width, scratch)
        if status[first + k] != OK:
            continue
        image = scratch[: height * width * 3].reshape(height, width, 3)
        for v in range(specs.shape[0]):
            size = int(specs[v, SPEC_SIZE])
            start = offsets[v] + (first + k) * size * size * 3
            view = out[start : start + size * size * 3].reshape(size, size, 3)
            draw_parameters(draw_key(seed, epoch, row, v), specs[v], height, width, parameters)
            render_view(image, parameters, view)


@compiled
def load_center_crops(
    address,
    pointers,
    sizes,
    modes,
    heights,
    widths,
    rows,
    resize,
    interpolation,
    out,
    first,
    status,
):
    """Decode each row, resize its shorter side to `resize` and cut the centre into out[first + k].

    The arithmetic of sizes and offsets is torchvision's `Resize` and `CenterCrop`.
    """
    scratch = np.empty(_largest(heights, widths, rows), np.uint8)
    crop = out.shape[1]
    for k in range(rows.size):
        row = rows[k]
        height, width = np.int64(heights[row]), np.int64(widths[row])
        data = stored_bytes(address, pointers, sizes, row)
        status[first + k] = decode(data, modes[row], height, width, scratch)
        if status[first + k] != OK:
            continue
        image = scratch[: height * width * 3].reshape(height, width, 3)
        if width <= height:
            full_width, full_height = resize, int(resize * height / width)
        else:
            full_height, full_width = resize, int(resize * width / height)
        top, left = int(round((full_height - crop) / 2.0)), int(round((full_width - crop) / 2.0))
        resample(
            image, 0, 0, height, width, full_height, full_width, top, left, interpolation,
            out[first + k],
        )  # fmt: skip


@compiled
def _largest(heights, widths, rows):
    largest = 0
    for k in range(rows.size):
        largest = max(largest, np.int64(heights[rows[k]]) * np.int64(widths[rows[k]]) * 3)
    return largest
