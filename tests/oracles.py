"""The equations once more, in plain numpy loops that share no code with the package."""

import math

import numpy as np


def draw_filterbank(centre, delta, sigma, filters, pixels):
    """Eqs. 19 and 25, Gregor et al. (2015), as printed: filters and pixels count from 1.

    `centre` is the place of the grid's middle, where pixel 1 is the first one.
    """
    bank = np.zeros((filters, pixels))
    for i in range(1, filters + 1):
        mu = centre + (i - filters / 2 - 0.5) * delta
        for a in range(1, pixels + 1):
            bank[i - 1, a - 1] = math.exp(-((a - mu) ** 2) / (2 * sigma**2))
        bank[i - 1] /= bank[i - 1].sum()
    return bank


def draw_read(image, c_x, c_y, delta_x, delta_y, sigma, gamma, size):
    """Eq. 27, Gregor et al. (2015), for one image `(C, H, W)`, one weighted sum per pixel seen."""
    channels, height, width = image.shape
    f_x = draw_filterbank((width - 1) / 2 * (c_x + 1) + 1, delta_x, sigma, size, width)
    f_y = draw_filterbank((height - 1) / 2 * (c_y + 1) + 1, delta_y, sigma, size, height)
    glimpse = np.zeros((channels, size, size))
    for c in range(channels):
        for i in range(size):
            for j in range(size):
                glimpse[c, i, j] = gamma * (np.outer(f_y[i], f_x[j]) * image[c]).sum()
    return glimpse


def convolve(image, weight, bias, stride):
    """3x3 convolution of one image `(C, H, W)`, padded by one pixel, and a ReLU."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    rows, columns = (height - 1) // stride + 1, (width - 1) // stride + 1
    out = np.zeros((len(weight), rows, columns))
    for o in range(len(weight)):
        for i in range(rows):
            for j in range(columns):
                patch = padded[:, i * stride : i * stride + 3, j * stride : j * stride + 3]
                out[o, i, j] = max((patch * weight[o]).sum() + bias[o], 0)
    return out


def pool(image, factor, reduce):
    """`reduce` over blocks of `factor` x `factor`; what does not fill a block is dropped."""
    channels, height, width = image.shape
    out = np.zeros((channels, height // factor, width // factor))
    for c, i, j in np.ndindex(*out.shape):
        rows, columns = i * factor, j * factor
        out[c, i, j] = reduce(image[c, rows : rows + factor, columns : columns + factor])
    return out


def dense(vector, weight, bias, *, relu):
    """A fully connected layer."""
    out = weight @ vector + bias
    return np.maximum(out, 0) if relu else out
