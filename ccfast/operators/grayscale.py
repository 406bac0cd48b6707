"""Grayscale: colorization of an image of which one weighted mean over the channels is known."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .operator import Operator, check_array, check_shape, wide

__all__ = ["Grayscale"]

REC_601 = (0.299, 0.587, 0.114)


class Grayscale(Operator):
    """(Hx)_p = sum_c weights[c] x[c, p], a measurement of one channel.

    Each pixel on its own is a rank-one problem: U = I, s = ||weights||, V = weights / ||weights||. Coordinates have
    the shape of the measurement, (1, H, W) or (1, L).

    Args:
        shape: of one image, (C, H, W) or (C, L).
        weights: C numbers; None: Rec. 601 luma (0.299, 0.587, 0.114), C must be 3.

    Raises:
        ValueError: not such a shape, weights not C finite numbers, or all of them zero.
        TypeError: weights not numbers.
    """

    kind = "channel"

    def __init__(self, shape: tuple[int, ...], weights: Any = None) -> None:
        name = type(self).__name__
        shape = check_shape(name, shape)
        if weights is None and shape[0] != 3:
            raise ValueError(f"{name}: weights None (Rec. 601) needs shape with 3 channels, got {shape}")
        weights = check_array(name, "weights", REC_601 if weights is None else weights)
        if weights.shape != shape[:1]:
            raise ValueError(
                f"{name}: weights must be one number for each of {shape[0]} channels, got shape {tuple(weights.shape)}"
            )
        norm = weights.norm()
        if norm == 0:
            raise ValueError(f"{name}: weights must not all be zero, got {weights.tolist()}")
        super().__init__(shape, (1, *shape[1:]))
        self.weights = weights
        self.gain = norm.item()
        self.singular_values = norm.reshape((1,) * len(shape))

    def _direction(self, like: Tensor) -> Tensor:
        column = (-1, *(1,) * (len(self.shape) - 1))
        return self.constant("direction", lambda: (self.weights / self.gain).reshape(column), like)

    def down(self, x: Tensor) -> Tensor:
        # A sum stays in float32 whatever the tf32 settings are, which a matrix product does not.
        return (wide(x) * self._direction(x)).sum(1, keepdim=True).to(x.dtype)

    def lift(self, c: Tensor) -> Tensor:
        return (wide(c) * self._direction(c)).to(c.dtype)

    def encode(self, y: Tensor) -> Tensor:
        return (wide(y) / self.gain).to(y.dtype)

    def decode(self, c: Tensor) -> Tensor:
        return c
