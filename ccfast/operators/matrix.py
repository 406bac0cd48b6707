"""Any small matrix."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from .operator import Operator, check_array, check_cutoff, check_shape, wide
from .separable import thin_svd, true_float32

__all__ = ["Matrix"]


class Matrix(Operator):
    """Hx = H @ x.flatten(), or H @ x[c].flatten() on every channel c alike, from the SVD of H in float64.

    Coordinates are (1, rank) for a matrix on the whole image and (C, rank) for one on a channel; what the SVD dropped
    is left out of them. A matrix takes memory and time of (number of pixels)^2, which is feasible up to some thousand.

    Args:
        H: (m, C H W) on the whole image, flattened with the last dimension running fastest, or (m, H W) on each
            channel; for signals (m, C L) or (m, L). With one channel these are the same.
        shape: of one image, (C, H, W) or (C, L).
        cutoff: singular values below it count as zero (as do those that are zero but for rounding).
        measurement_shape: None: (m,) on the whole image, (C, m) on each channel. Otherwise a shape of as many numbers.

    Raises:
        ValueError: an argument against these rules, or a cutoff that leaves nothing.
        TypeError: a matrix that is not numbers.
    """

    kind = "dense"

    def __init__(
        self,
        H: Any,
        shape: tuple[int, ...],
        cutoff: float = 0.0,
        measurement_shape: tuple[int, ...] | None = None,
    ) -> None:
        name = type(self).__name__
        shape = check_shape(name, shape)
        matrix = check_array(name, "H", H)
        pixels = math.prod(shape[1:])
        if matrix.ndim != 2 or matrix.shape[0] == 0 or matrix.shape[1] not in (shape[0] * pixels, pixels):
            raise ValueError(
                f"{name}: H must be (m, {shape[0] * pixels}) for the whole image of shape {shape} or (m, {pixels}) for "
                f"one channel, got shape {tuple(matrix.shape)}"
            )
        rows, self.columns = matrix.shape
        self.groups = 1 if self.columns == shape[0] * pixels else shape[0]
        natural = (rows,) if self.groups == 1 else (self.groups, rows)
        own = natural if measurement_shape is None else tuple(measurement_shape)
        if math.prod(own) != self.groups * rows:
            raise ValueError(f"{name}: measurement_shape must hold {self.groups * rows} numbers, got {own}")
        super().__init__(shape, own)
        self.factor = thin_svd(name, matrix.numpy(), check_cutoff(name, cutoff))
        self.singular_values = self.factor.s[None]
        self.dense_projection = self.columns < 2 * len(self.factor.s)  # V V^T as one matrix is then cheaper

    def _apply(self, name: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The rows of x times one matrix of the SVD."""
        u, s, v = self.factor
        makes = {
            "down": lambda: v,
            "lift": lambda: v.mT.contiguous(),
            "encode": lambda: u / s,
            "decode": lambda: u.mT.contiguous(),
            "project": lambda: v @ v.mT,
        }
        matrix = self.constant(name, makes[name], x)
        with true_float32():
            return (wide(x).reshape(x.shape[0], self.groups, matrix.shape[0]) @ matrix).to(x.dtype).reshape(shape)

    def _coordinates(self, x: Tensor) -> tuple[int, ...]:
        return (x.shape[0], self.groups, len(self.factor.s))

    def down(self, x: Tensor) -> Tensor:
        return self._apply("down", x, self._coordinates(x))

    def lift(self, c: Tensor) -> Tensor:
        return self._apply("lift", c, (c.shape[0], *self.shape))

    def encode(self, y: Tensor) -> Tensor:
        return self._apply("encode", y, self._coordinates(y))

    def decode(self, c: Tensor) -> Tensor:
        return self._apply("decode", c, (c.shape[0], *self.measurement_shape))

    def project(self, x: Tensor) -> Tensor:
        if not self.dense_projection:
            return super().project(x)
        self.check_image(x)
        return self._apply("project", x, (x.shape[0], *self.shape))
