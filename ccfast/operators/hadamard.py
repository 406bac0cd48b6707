"""Compressed sensing: some coefficients of the Walsh-Hadamard transform of every channel."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .operator import Operator, check_array, check_shape, wide

__all__ = ["Hadamard"]

ORDERS = ("natural", "sequency")


class Hadamard(Operator):
    """(Hx)_i = sum_j W[indices[i], j] x_j / sqrt(n) on every channel, W the n x n Hadamard matrix of +1 and -1.

    x_j are the n pixels of a channel, flattened with the last dimension running fastest; n is a power of two. The rows
    are orthonormal, so that U = I, s = 1, and the coordinates are the measurement, (C, m). The transform takes
    n log2 n additions.

    Args:
        shape: of one image, (C, H, W) or (C, L).
        indices: m different integers in [0, n), in any order.
        order: how the rows of W are counted. "natural": W[i, j] = (-1)^(number of common bits of i and j), as
            scipy.linalg.hadamard; "sequency": by their number of sign changes, so that low indices are low frequencies
            of the flattened image.

    Raises:
        ValueError: an argument against these rules.
        TypeError: indices that are not numbers.
    """

    kind = "dense"

    def __init__(self, shape: tuple[int, ...], indices: Any, order: str = "natural") -> None:
        name = type(self).__name__
        shape = check_shape(name, shape)
        n = math.prod(shape[1:])
        if n & (n - 1):
            raise ValueError(f"{name}: shape must have a power of two of pixels in a channel, got {shape} with {n}")
        if order not in ORDERS:
            raise ValueError(f"{name}: order must be one of {', '.join(ORDERS)}, got {order!r}")
        values = check_array(name, "indices", indices)
        rows = values.to(torch.int64)
        if values.ndim != 1 or not len(rows) or (rows != values).any() or rows.min() < 0 or rows.max() >= n:
            raise ValueError(f"{name}: indices must be a list of integers in [0, {n}), got {indices}")
        if len(rows.unique()) < len(rows):
            raise ValueError(f"{name}: indices must all be different, got {indices}")
        super().__init__(shape, (shape[0], len(rows)))
        self.indices = rows if order == "natural" else natural_index(rows, n)
        self.pixels = n
        self.singular_values = torch.ones((1, 1), dtype=torch.float64)

    def _indices(self, like: Tensor) -> Tensor:
        return self.constant("indices", lambda: self.indices, like)

    def down(self, x: Tensor) -> Tensor:
        spectrum = walsh_hadamard(wide(x).reshape(x.shape[0], self.shape[0], self.pixels))
        return spectrum.index_select(2, self._indices(x)).to(x.dtype)

    def lift(self, c: Tensor) -> Tensor:
        zeros = torch.zeros((c.shape[0], self.shape[0], self.pixels), dtype=wide(c).dtype, device=c.device)
        spectrum = zeros.index_copy(2, self._indices(c), wide(c))
        return walsh_hadamard(spectrum).reshape(c.shape[0], *self.shape).to(c.dtype)

    def encode(self, y: Tensor) -> Tensor:
        return y

    def decode(self, c: Tensor) -> Tensor:
        return c


def natural_index(sequency: Tensor, n: int) -> Tensor:
    """The row in natural order of the row with this many sign changes: the bits of its Gray code, reversed."""
    gray = sequency ^ (sequency >> 1)
    row = torch.zeros_like(gray)
    for _ in range(n.bit_length() - 1):
        row = (row << 1) | (gray & 1)
        gray = gray >> 1
    return row


def walsh_hadamard(x: Tensor) -> Tensor:
    """The orthonormal transform of the last dimension, its own inverse: natural order."""
    shape, n, half = x.shape, x.shape[-1], 1
    while half < n:
        a, b = x.reshape(*shape[:-1], n // (2 * half), 2, half).unbind(-2)
        x = torch.stack((a + b, a - b), -2)
        half *= 2
    return x.reshape(shape) * n**-0.5
