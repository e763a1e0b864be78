"""Counter-based randomness: what a view looks like is a function of (seed, epoch, index, view).

Nothing is carried from draw to draw, so any number of threads, batches, ranks or restarts draws the
same crops, flips and colours.
"""

import numpy as np

from rela.data.kernels.compiled import compiled

# Columns of a view specification, one row per view (see rela.data.views.View).
SPEC_SIZE, SPEC_SCALE_MIN, SPEC_SCALE_MAX, SPEC_RATIO_MIN, SPEC_RATIO_MAX = 0, 1, 2, 3, 4
SPEC_FLIP, SPEC_JITTER, SPEC_BRIGHTNESS, SPEC_CONTRAST, SPEC_SATURATION = 5, 6, 7, 8, 9
SPEC_HUE, SPEC_GRAY, SPEC_BLUR, SPEC_SIGMA_MIN, SPEC_SIGMA_MAX, SPEC_SOLARIZE = (
    10,
    11,
    12,
    13,
    14,
    15,
)
SPEC_COLUMNS = 16

# Columns of the drawn parameters of one view of one sample.
TOP, LEFT, HEIGHT, WIDTH, FLIP = 0, 1, 2, 3, 4
ORDER, BRIGHTNESS, CONTRAST, SATURATION, HUE = 5, 6, 7, 8, 9  # ORDER < 0: no colour jitter
GRAY, SIGMA, SOLARIZE = 10, 11, 12  # SIGMA = 0: no blur
PARAMETER_COLUMNS = 13

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
# "Views" whose draws decide other things: the order of an epoch, the crop that a view replays.
_ORDER_OF_EPOCH, _CHOICE_OF_CROP = 0xFFFFFFFF, 0xFFFFFFFE


@compiled
def mix(x):
    """The output function of splitmix64 (Steele, Lea, Flood 2014): uint64 → uint64, bijective."""
    x = np.uint64(x)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@compiled
def draw_key(seed, epoch, index, view):
    """The key of one view of one sample in one epoch: its own splitmix64 stream."""
    key = mix(np.uint64(seed) + _GOLDEN_GAMMA)
    key = mix(key ^ (np.uint64(epoch) + _GOLDEN_GAMMA))
    key = mix(key ^ (np.uint64(index) + _GOLDEN_GAMMA))
    return mix(key ^ (np.uint64(view) + _GOLDEN_GAMMA))


@compiled
def uniform(key, counter):
    """Draw number `counter` of stream `key`, uniform in [0, 1) with 53 bits."""
    bits = mix(key + np.uint64(counter + 1) * _GOLDEN_GAMMA)
    return np.float64(bits >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@compiled
def hash_indices(seed, epoch, num_samples):
    """uint64 [num_samples]: one hash per sample; sorting by it gives the order of an epoch."""
    out = np.empty(num_samples, np.uint64)
    for i in range(num_samples):
        out[i] = draw_key(seed, epoch, i, _ORDER_OF_EPOCH)
    return out


@compiled
def draw_parameters(key, spec, height, width, out):
    """Draw crop, flip and colour of one view with torchvision's distributions into `out`.

    Every draw has its own counter, so that no probability shifts the draws after it.
    """
    area = float(height) * float(width)
    log_min, log_max = np.log(spec[SPEC_RATIO_MIN]), np.log(spec[SPEC_RATIO_MAX])
    found = False
    for attempt in range(10):
        c = 4 * attempt
        target = area * (
            spec[SPEC_SCALE_MIN] + uniform(key, c) * (spec[SPEC_SCALE_MAX] - spec[SPEC_SCALE_MIN])
        )
        aspect = np.exp(log_min + uniform(key, c + 1) * (log_max - log_min))
        w = int(round(np.sqrt(target * aspect)))
        h = int(round(np.sqrt(target / aspect)))
        if 0 < w <= width and 0 < h <= height:
            out[TOP] = int(uniform(key, c + 2) * (height - h + 1))
            out[LEFT] = int(uniform(key, c + 3) * (width - w + 1))
            out[HEIGHT], out[WIDTH] = h, w
            found = True
            break
    if not found:  # the central crop with the nearest allowed aspect ratio
        h, w = height, width
        if width / height < spec[SPEC_RATIO_MIN]:
            h = min(height, int(round(width / spec[SPEC_RATIO_MIN])))
        elif width / height > spec[SPEC_RATIO_MAX]:
            w = min(width, int(round(height * spec[SPEC_RATIO_MAX])))
        out[TOP], out[LEFT], out[HEIGHT], out[WIDTH] = (height - h) // 2, (width - w) // 2, h, w
    out[FLIP] = uniform(key, 40) < spec[SPEC_FLIP]
    out[ORDER] = -1
    if uniform(key, 41) < spec[SPEC_JITTER]:
        out[ORDER] = int(uniform(key, 42) * 24)  # which of the 4! orders of the four operations
    for column, strength, counter in (
        (BRIGHTNESS, spec[SPEC_BRIGHTNESS], 43),
        (CONTRAST, spec[SPEC_CONTRAST], 44),
        (SATURATION, spec[SPEC_SATURATION], 45),
    ):
        low = max(0.0, 1.0 - strength)
        out[column] = low + uniform(key, counter) * (1.0 + strength - low)
    out[HUE] = (2.0 * uniform(key, 46) - 1.0) * spec[SPEC_HUE]
    out[GRAY] = uniform(key, 47) < spec[SPEC_GRAY]
    out[SIGMA] = 0.0
    if uniform(key, 48) < spec[SPEC_BLUR]:
        span = spec[SPEC_SIGMA_MAX] - spec[SPEC_SIGMA_MIN]
        out[SIGMA] = spec[SPEC_SIGMA_MIN] + uniform(key, 49) * span
    out[SOLARIZE] = uniform(key, 50) < spec[SPEC_SOLARIZE]


@compiled
def draw_boxes(seed, epoch, indices, view, spec, heights, widths):
    """float64 [n, 4]: top, left, height, width in pixels of what a view shows of these samples."""
    boxes = np.empty((indices.size, 4), np.float64)
    parameters = np.empty(PARAMETER_COLUMNS, np.float64)
    for k in range(indices.size):
        row = indices[k]
        key = draw_key(seed, epoch, row, view)
        draw_parameters(key, spec, np.int64(heights[row]), np.int64(widths[row]), parameters)
        boxes[k] = parameters[:4]
    return boxes


@compiled
def replayed_crop(seed, epoch, index, view, num_crops):
    """Which of the `num_crops` crops of sample `index` this view replays; neighbours for neighbours."""
    draw = uniform(draw_key(seed, epoch, index, _CHOICE_OF_CROP), 0)
    return (int(draw * num_crops) + view) % num_crops


@compiled
def replayed_rows(seed, epoch, indices, view, num_crops):
    """int64 [n]: rows of an [N · num_crops] matrix that belong to what this view shows."""
    rows = np.empty(indices.size, np.int64)
    for k in range(indices.size):
        crop = replayed_crop(seed, epoch, indices[k], view, num_crops)
        rows[k] = indices[k] * num_crops + crop
    return rows


@compiled
def draw_crops(seed, spec, heights, widths, num_crops):
    """uint16 [N, num_crops, 5]: top, left, height, width, flip of random crops of every sample."""
    crops = np.empty((heights.size, num_crops, 5), np.uint16)
    parameters = np.empty(PARAMETER_COLUMNS, np.float64)
    for index in range(heights.size):
        for crop in range(num_crops):
            key = draw_key(seed, crop, index, 0)
            draw_parameters(
                key, spec, np.int64(heights[index]), np.int64(widths[index]), parameters
            )
            for column in range(5):
                crops[index, crop, column] = np.uint16(parameters[column])
    return crops
