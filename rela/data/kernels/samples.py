"""Whole samples: stored image → all views of a training step, or → the input of a prior."""

import numpy as np

from rela.data.kernels.colour import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    gaussian_blur,
    solarize,
    to_gray,
)
from rela.data.kernels.compiled import compiled
from rela.data.kernels.decode import OK, stored_image
from rela.data.kernels.draws import (  # fmt: skip
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
    replayed_crop,
)
from rela.data.kernels.resample import BILINEAR, resample


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
        int(parameters[WIDTH]), size, size, 0, 0, BILINEAR, out, parameters[FLIP] != 0,
    )  # fmt: skip
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
    address, pointers, sizes, modes, heights, widths, rows, seed, epoch, specs, crops, out, offsets,
    first, status,
):  # fmt: skip
    """Decode each row once and render all its views.

    With `crops` (uint16 [N, K, 5], K > 0) box and flip of every view are one of the sample's K.

    View v of rows[k] is written to `out` (flat uint8) at offsets[v] + (first + k)·size_v²·3;
    status[first + k] tells whether the image could be decoded.
    """
    scratch = np.empty(_largest(heights, widths, rows), np.uint8)
    parameters = np.empty(PARAMETER_COLUMNS, np.float64)
    for k in range(rows.size):
        row = rows[k]
        status[first + k], image = stored_image(
            address, pointers, sizes, modes, heights, widths, row, scratch
        )
        if status[first + k] != OK:
            continue
        for v in range(specs.shape[0]):
            size = int(specs[v, SPEC_SIZE])
            start = offsets[v] + (first + k) * size * size * 3
            view = out[start : start + size * size * 3].reshape(size, size, 3)
            height, width = image.shape[:2]
            draw_parameters(draw_key(seed, epoch, row, v), specs[v], height, width, parameters)
            if crops.shape[1] > 0:
                crop = replayed_crop(seed, epoch, row, v, crops.shape[1])
                parameters[: FLIP + 1] = crops[row, crop]  # top, left, height, width, flip
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
        status[first + k], image = stored_image(
            address, pointers, sizes, modes, heights, widths, row, scratch
        )
        if status[first + k] != OK:
            continue
        height, width = image.shape[:2]
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
def load_crops(
    address, pointers, sizes, modes, heights, widths, rows, crops, interpolation, out, first, status
):  # fmt: skip
    """Decode each row once, cut its K boxes, resize each to a square, mirror where told.

    `crops` uint16 [N, K, 5]; crop k of rows[i] goes to out[(first + i) · K + k].
    """
    scratch = np.empty(_largest(heights, widths, rows), np.uint8)
    size, num_crops = out.shape[1], crops.shape[1]
    for i in range(rows.size):
        row = rows[i]
        status[first + i], image = stored_image(
            address, pointers, sizes, modes, heights, widths, row, scratch
        )
        if status[first + i] != OK:
            continue
        for k in range(num_crops):
            box = crops[row, k].astype(np.int64)
            target = out[(first + i) * num_crops + k]
            resample(
                image, box[0], box[1], box[2], box[3], size, size, 0, 0, interpolation, target,
                box[4] != 0,
            )  # fmt: skip


@compiled
def _largest(heights, widths, rows):
    largest = 0
    for k in range(rows.size):
        largest = max(largest, np.int64(heights[rows[k]]) * np.int64(widths[rows[k]]) * 3)
    return largest
