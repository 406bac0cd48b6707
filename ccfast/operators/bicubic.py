"""Bicubic downsampling: super-resolution with the usual antialiased cubic kernel."""

from __future__ import annotations

import numpy as np

from .operator import check_factor, check_shape
from .separable import Separable, correlation_axis

__all__ = ["Bicubic"]


def cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Keys' cubic convolution kernel, zero from |x| = 2 on."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


class Bicubic(Separable):
    """Downsampling by an integer factor with the cubic kernel a = -0.5 stretched by factor, reflected at the borders.

    In one dimension, with d the distance of pixel j from the middle of the block of factor pixels that output i covers,

        (Hx)_i = sum_j w(d) x_j,    d = j - (factor i + (factor - 1) / 2),    w(d) ~ cubic(d / factor) of sum one

    over |d| < 2 factor, where x continues with its edge repeated. It is what MATLAB's imresize does with an antialiased
    "bicubic", borders included. Pillow (BICUBIC) and torch (interpolate with mode="bicubic", antialias=True) take the
    same weights, but leave out those beyond the border and scale the others up. They differ from this on the outermost
    two pixels of each side, by at most 15 % of the range of the image for factors up to 8, and nowhere else.

    Args:
        shape: of one image, (C, H, W) or (C, L).
        factor: ratio of the sides.

    Raises:
        ValueError: not such a shape, factor not a positive integer, or a side that it does not divide.
    """

    def __init__(self, shape: tuple[int, ...], factor: int) -> None:
        name = type(self).__name__
        shape = check_shape(name, shape)
        self.factor = factor = check_factor(name, factor, shape)
        # The middle of a block is a pixel for odd factors, and lies between two for even ones.
        count = 4 * factor - factor % 2
        kernel = cubic((np.arange(count) - (count - 1) / 2) / factor)
        taps = (kernel / kernel.sum()).tobytes()
        center = (count - factor) // 2
        # H is well conditioned and needs no cutoff; only what is zero but for rounding is dropped
        axes = [correlation_axis(name, taps, n, center, factor, "reflect", 0.0) for n in shape[1:]]
        super().__init__(shape, axes)
