"""Colour operations in place on uint8 images [height, width, 3].

Each does what torchvision's functional operation of the same name does to a uint8 tensor.
"""

import numpy as np

from rela.kernels.compiled import compiled


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
    pixels = image.reshape(-1, 3)
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
    pixels = image.reshape(-1, 3)
    f, rest = np.float32(factor), np.float32(1.0 - factor)
    for i in range(pixels.shape[0]):
        gray = rest * np.float32(_gray(pixels[i, 0], pixels[i, 1], pixels[i, 2]))
        for c in range(3):
            pixels[i, c] = _clamp_to_uint8(f * np.float32(pixels[i, c]) + gray)


@compiled
def adjust_hue(image, shift):
    """In place: turn the hue of HSV by `shift` of a full turn, in [-0.5, 0.5]."""
    pixels = image.reshape(-1, 3)
    one, six = np.float32(1), np.float32(6)
    back = np.float32(255.0 + 1.0 - 1e-3)
    for i in range(pixels.shape[0]):
        r = np.float32(pixels[i, 0]) / np.float32(255)
        g = np.float32(pixels[i, 1]) / np.float32(255)
        b = np.float32(pixels[i, 2]) / np.float32(255)
        high, low = max(r, g, b), min(r, g, b)
        spread = high - low
        if spread == 0:
            continue  # gray has no hue
        if high == r:
            hue = (g - b) / spread
        elif high == g:
            hue = np.float32(2) + (b - r) / spread
        else:
            hue = np.float32(4) + (r - g) / spread
        hue = np.float32((hue / six + one) % one)
        hue = np.float32((hue + np.float32(shift)) % one)
        saturation = spread / high
        sector = np.floor(hue * six)
        fraction = hue * six - sector
        p = min(max(high * (one - saturation), np.float32(0)), one)
        q = min(max(high * (one - saturation * fraction), np.float32(0)), one)
        t = min(max(high * (one - saturation * (one - fraction)), np.float32(0)), one)
        k = int(sector) % 6
        if k == 0:
            r, g, b = high, t, p
        elif k == 1:
            r, g, b = q, high, p
        elif k == 2:
            r, g, b = p, high, t
        elif k == 3:
            r, g, b = p, q, high
        elif k == 4:
            r, g, b = t, p, high
        else:
            r, g, b = high, p, q
        pixels[i, 0] = np.uint8(r * back)
        pixels[i, 1] = np.uint8(g * back)
        pixels[i, 2] = np.uint8(b * back)


@compiled
def to_gray(image):
    """In place: every channel becomes the gray value."""
    pixels = image.reshape(-1, 3)
    for i in range(pixels.shape[0]):
        pixels[i, :] = _gray(pixels[i, 0], pixels[i, 1], pixels[i, 2])


@compiled
def solarize(image):
    """In place: invert every value of at least 128."""
    flat = image.reshape(-1)
    for i in range(flat.size):
        if flat[i] >= 128:
            flat[i] = np.uint8(255 - flat[i])


@compiled
def blur_radius(sigma, size):
    """Pixels on each side of the kernel: four standard deviations, as far as reflection allows."""
    return max(0, min(int(4.0 * sigma + 0.5), size - 1))


@compiled
def gaussian_blur(image, sigma):
    """In place: a Gaussian of `sigma` pixels, cut at 4 sigma, edges reflected."""
    height, width = image.shape[0], image.shape[1]
    radius = blur_radius(sigma, min(height, width))
    taps = np.empty(2 * radius + 1, np.float32)
    total = 0.0
    for t in range(2 * radius + 1):
        value = np.exp(-0.5 * ((t - radius) / sigma) ** 2)
        taps[t] = value
        total += value
    taps /= np.float32(total)
    rows = np.empty((height, width * 3), np.float32)
    padded = np.empty((width + 2 * radius, 3), np.float32)
    for y in range(height):
        for x in range(-radius, width + radius):
            source = -x if x < 0 else (2 * width - 2 - x if x >= width else x)
            for c in range(3):
                padded[x + radius, c] = image[y, source, c]
        line = padded.reshape(-1)
        rows[y, :] = np.float32(0)
        for t in range(2 * radius + 1):
            for x in range(width * 3):
                rows[y, x] += taps[t] * line[x + 3 * t]
    sums = np.empty(width * 3, np.float32)
    for y in range(height):
        sums[:] = np.float32(0.5)  # rounding
        for t in range(-radius, radius + 1):
            source = y + t
            source = -source if source < 0 else source
            source = 2 * height - 2 - source if source >= height else source
            weight = taps[t + radius]
            for x in range(width * 3):
                sums[x] += weight * rows[source, x]
        flat = image[y].reshape(width * 3)
        for x in range(width * 3):
            flat[x] = _clamp_to_uint8(sums[x])
