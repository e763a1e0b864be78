"""Colour operations in place on uint8 images [height, width, 3].

Each does what torchvision's functional operation of the same name does to a uint8 tensor.
"""

import numpy as np

from rela.data.kernels.compiled import as_pixels, compiled, copy_bytes


@compiled
def _gray(r, g, b):
    return np.uint8(
        np.float32(0.2989) * np.float32(r)
        + np.float32(0.587) * np.float32(g)
        + np.float32(0.114) * np.float32(b)
    )


@compiled
def _clamp_to_uint8(value):
    return np.uint8(min(max(value, np.float32(0)), np.float32(255)))


@compiled
def adjust_brightness(image, factor):
    """In place: factor · image."""
    flat = image.reshape(-1)
    f = np.float32(factor)
    for i in range(flat.size):
        flat[i] = _clamp_to_uint8(f * np.float32(flat[i]))


@compiled
def adjust_contrast(image, factor):
    """In place: blend with the mean of the gray image."""
    pixels = as_pixels(image)
    total = 0
    for i in range(pixels.shape[0]):
        total += _gray(pixels[i, 0], pixels[i, 1], pixels[i, 2])
    f = np.float32(factor)
    shift = np.float32(1.0 - factor) * np.float32(total / pixels.shape[0])
    flat = image.reshape(-1)
    for i in range(flat.size):
        flat[i] = _clamp_to_uint8(f * np.float32(flat[i]) + shift)


@compiled
def adjust_saturation(image, factor):
    """In place: blend with the gray image."""
    pixels = as_pixels(image)
    f, rest = np.float32(factor), np.float32(1.0 - factor)
    for i in range(pixels.shape[0]):
        r, g, b = np.float32(pixels[i, 0]), np.float32(pixels[i, 1]), np.float32(pixels[i, 2])
        gray = rest * np.float32(_gray(r, g, b))
        pixels[i, 0] = _clamp_to_uint8(f * r + gray)
        pixels[i, 1] = _clamp_to_uint8(f * g + gray)
        pixels[i, 2] = _clamp_to_uint8(f * b + gray)


@compiled
def _channel_of_hue(offset, hue, high, spread):
    """One channel of an HSV colour: `high` less what the hue takes from it.

    In a turn of 6 sectors the channel falls during one, stays low for two, rises during one and stays
    high for two; `offset` says where it begins.
    """
    place = offset + hue
    place -= np.float32(6) * np.floor(place * np.float32(1 / 6))
    share = min(max(min(place, np.float32(4) - place), np.float32(0)), np.float32(1))
    return np.uint8((high - spread * share) * np.float32((255.0 + 1.0 - 1e-3) / 255.0))


@compiled
def adjust_hue(image, shift):
    """In place: turn the hue of HSV by `shift` of a full turn, in [-0.5, 0.5]."""
    pixels = as_pixels(image)
    turn = np.float32(6.0 * shift)
    for i in range(pixels.shape[0]):
        r, g, b = np.float32(pixels[i, 0]), np.float32(pixels[i, 1]), np.float32(pixels[i, 2])
        high, low = max(max(r, g), b), min(min(r, g), b)
        spread = high - low
        per_spread = np.float32(1) / max(spread, np.float32(1))  # gray has no hue, whatever follows
        hue = np.float32(4) + (r - g) * per_spread
        hue = np.float32(2) + (b - r) * per_spread if high == g else hue
        hue = (g - b) * per_spread if high == r else hue
        hue += turn
        pixels[i, 0] = _channel_of_hue(np.float32(5), hue, high, spread)
        pixels[i, 1] = _channel_of_hue(np.float32(3), hue, high, spread)
        pixels[i, 2] = _channel_of_hue(np.float32(1), hue, high, spread)


@compiled
def to_gray(image):
    """In place: every channel becomes the gray value."""
    pixels = as_pixels(image)
    for i in range(pixels.shape[0]):
        gray = _gray(pixels[i, 0], pixels[i, 1], pixels[i, 2])
        pixels[i, 0], pixels[i, 1], pixels[i, 2] = gray, gray, gray


@compiled
def solarize(image):
    """In place: invert every value of at least 128."""
    flat = image.reshape(-1)
    for i in range(flat.size):
        value = flat[i]
        flat[i] = np.uint8(255 - value) if value >= 128 else value


@compiled
def blur_radius(sigma, size):
    """Pixels on each side of the kernel: four standard deviations, as far as reflection allows."""
    return max(0, min(int(4.0 * sigma + 0.5), size - 1))


@compiled
def gaussian_blur(image, sigma):
    """In place: a Gaussian of `sigma` pixels, cut at 4 sigma, edges reflected.

    Vertically, then horizontally, a row at a time: only the image itself leaves the fastest cache. The
    taps on both sides of the centre are equal, so their pixels are added before they are weighted.
    """
    height, width = image.shape[0], image.shape[1]
    radius = blur_radius(sigma, min(height, width))
    taps = np.empty(radius + 1, np.float32)  # from the centre outwards
    total = 0.0
    for t in range(radius + 1):
        taps[t] = np.exp(-0.5 * (t / sigma) ** 2)
        total += taps[t] if t == 0 else 2 * taps[t]
    taps /= np.float32(total)
    length, margin = width * 3, radius * 3
    source = np.empty((height, length), np.uint8)
    copy_bytes(image.reshape(-1), 0, image.size, source.reshape(-1))
    padded = np.empty(length + 2 * margin, np.float32)
    column_sums, sums = padded[margin : margin + length], np.empty(length, np.float32)
    for y in range(height):
        weight, centre = taps[0], source[y]
        for x in range(length):
            column_sums[x] = weight * np.float32(centre[x])
        for t in range(1, radius + 1):
            weight = taps[t]
            above, below = source[abs(y - t)], source[min(y + t, 2 * height - 2 - y - t)]
            for x in range(length):
                column_sums[x] += weight * np.float32(np.int32(above[x]) + np.int32(below[x]))
        for x in range(1, radius + 1):
            for c in range(3):
                padded[margin - 3 * x + c] = column_sums[3 * x + c]
                padded[margin + length + 3 * (x - 1) + c] = column_sums[length - 3 * (x + 1) + c]
        weight = taps[0]
        for x in range(length):
            sums[x] = np.float32(0.5) + weight * column_sums[x]  # 0.5: rounding
        for t in range(1, radius + 1):
            weight = taps[t]
            left, right = padded[margin - 3 * t :], padded[margin + 3 * t :]
            for x in range(length):
                sums[x] += weight * (left[x] + right[x])
        out = image[y].reshape(length)
        for x in range(length):
            out[x] = _clamp_to_uint8(sums[x])
