"""Bicubic downsampling: super-resolution with the usual antialiased cubic kernel."""

from __future__ import annotations

import numpy as np

from .operator import check_factor, check_shape
from .separable import Separable, correlation_factor

__all__ = ["Bicubic"]


def cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Keys' cubic convolution kernel, zero from |x| = 2 on."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


class Bicubic(Separable):
    """Downsampling by an integer factor with the cubic kernel a = -0.5 stretched by factor, reflected at the borders.

    In one dimension (Hx)_i = sum_k kernel[k] x[factor i + factor // 2 + k - 2 factor], k = 0 .. 4 factor - 1, with
    kernel[k] ~ cubic((k - 2 factor + 0.5) / factor) of sum one.

    Args:
        shape: of one image, (C, H, W) or (C, L).
        factor: ratio of the sides.

    Raises:
        ValueError: not such a shape, factor not a positive integer, or a side that it does not divide.
    """

    def __init__(self, shape: tuple[int, ...], factor: int) -> None:
        name = type(self).__name__
        shape = check_shape(name, shape)
        self.factor = check_factor(name, factor, shape)
        kernel = cubic((np.arange(4 * factor) - 2 * factor + 0.5) / factor)
        taps = (kernel / kernel.sum()).tobytes()
        center = 2 * factor - factor // 2
        # no cutoff: what remains of H is well conditioned, only zeros but for rounding are dropped
        factors = [correlation_factor(name, taps, n, center, factor, "reflect", 0.0) for n in shape[1:]]
        super().__init__(shape, factors)
