"""The level of the noise of a picture, estimated from the picture alone."""

from __future__ import annotations

import numpy as np

__all__ = ["ROUNDING", "estimate_noise", "estimate_noise_of_blur"]

ROUNDING = 12**-0.5
"""The standard deviation of rounding to whole numbers."""
SIDE = 8
MOST = 60_000
"""The number of patches that are looked at, spread evenly over a large picture."""


def estimate_noise(samples: np.ndarray) -> float:
    """The standard deviation of white noise in a picture (H, W, C), in the units of its samples; rounding not included.

    The covariance of patches of white noise on structure that lies in few dimensions has many eigenvalues sigma^2 and a
    few that are larger: the largest are left out until the mean of the others is their median (Chen, Zhu and Heng, ICCV
    2015). Patches that touch the ends of the range are left out, where noise is cut off. Texture of a pixel's size is
    noise to this estimate.
    """
    height, width, _ = samples.shape
    side = min(SIDE, height, width)
    if side < 3:
        return 0.0
    steps = max(1, int(np.sqrt(height * width / MOST)))
    patches = np.lib.stride_tricks.sliding_window_view(samples, (side, side), axis=(0, 1))[::steps, ::steps]
    levels = []
    for channel in range(samples.shape[2]):
        rows = patches[:, :, channel].reshape(-1, side * side)
        largest = np.iinfo(samples.dtype).max
        rows = rows[(rows.min(1) > 0) & (rows.max(1) < largest)].astype(np.float64)
        if len(rows) < 4 * side * side:  # Almost all is black or white.
            rows = patches[:, :, channel].reshape(-1, side * side).astype(np.float64)
        levels.append(_level(rows))
    return float(np.sqrt(np.mean(np.square(levels))))


def _level(rows: np.ndarray) -> float:
    if len(rows) <= rows.shape[1]:
        return 0.0
    eigenvalues = np.linalg.eigvalsh(np.cov(rows, rowvar=False)).clip(0)
    for count in range(len(eigenvalues), 0, -1):
        mean = eigenvalues[:count].mean()
        if np.median(eigenvalues[:count]) >= mean:
            return float(np.sqrt(mean))
    return 0.0


def estimate_noise_of_blur(samples: np.ndarray, kernel: np.ndarray) -> float:
    """The same of a blurred picture, where the blur leaves nothing of the scene.

    The twentieth part of all frequencies that the kernel (kh, kw) damps most shows the noise alone. The power there is
    that of an exponential distribution, whose median is ln 2 times its mean, and a few large values change that little.
    """
    height, width = (min(side, LARGEST) for side in samples.shape[:2])
    top, left = (samples.shape[0] - height) // 2, (samples.shape[1] - width) // 2
    part = samples[top : top + height, left : left + width].astype(np.float64)
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    taps = np.zeros((height, width))
    rows, columns = (np.arange(n) % side for n, side in zip(kernel.shape, taps.shape, strict=True))
    np.add.at(taps, np.ix_(rows, columns), kernel)
    response = np.abs(np.fft.rfft2(taps))
    quiet = response <= np.quantile(response, 0.05)
    power = [
        np.median(np.abs(np.fft.rfft2((plane - plane.mean()) * window))[quiet] ** 2)
        for plane in part.transpose(2, 0, 1)
    ]
    return float(np.sqrt(np.mean(power) / np.log(2) / np.square(window).sum()))


LARGEST = 1024
"""The side of the part in the centre of a large picture whose frequencies are looked at."""
