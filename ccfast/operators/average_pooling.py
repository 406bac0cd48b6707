"""Average pooling: super-resolution of an image whose pixels are the means of tiles."""

from __future__ import annotations

import torch
from torch import Tensor

from .operator import Operator, check_factor, check_shape, wide

__all__ = ["AveragePooling"]


class AveragePooling(Operator):
    """(Hx)_p = mean of the factor x factor tile p (of the tile of length factor for signals).

    Rows of H are orthogonal: U = I, s = factor^(-d/2) for d spatial dimensions (1/factor for images), and V repeats
    s c over a tile. Coordinates have the shape of the measurement, (C, H/factor, W/factor).

    Args:
        shape: of one image, (C, H, W) or (C, L).
        factor: side of a tile.

    Raises:
        ValueError: not such a shape, factor not a positive integer, or a side that it does not divide.
    """

    kind = "block"

    def __init__(self, shape: tuple[int, ...], factor: int) -> None:
        name = type(self).__name__
        shape = check_shape(name, shape)
        self.factor = factor = check_factor(name, factor, shape)
        super().__init__(shape, (shape[0], *(n // factor for n in shape[1:])))
        self.gain = factor ** (-0.5 * (len(shape) - 1))
        self.singular_values = torch.full((1,) * len(shape), self.gain, dtype=torch.float64)

    def _means(self, x: Tensor) -> Tensor:
        tiles = [x.shape[0], x.shape[1]]
        for n in self.measurement_shape[1:]:
            tiles += [n, self.factor]
        return x.reshape(tiles).mean(dim=tuple(range(3, len(tiles), 2)))

    def down(self, x: Tensor) -> Tensor:
        return (self._means(wide(x)) / self.gain).to(x.dtype)

    def lift(self, c: Tensor) -> Tensor:
        tiles, sizes = wide(c) * self.gain, [c.shape[0], c.shape[1]]
        for n in self.measurement_shape[1:]:
            tiles = tiles.unsqueeze(len(sizes) + 1)
            sizes += [n, self.factor]
        return tiles.expand(sizes).reshape(c.shape[0], *self.shape).to(c.dtype)

    def encode(self, y: Tensor) -> Tensor:
        return (wide(y) / self.gain).to(y.dtype)

    def decode(self, c: Tensor) -> Tensor:
        return c

    def forward(self, x: Tensor) -> Tensor:
        self.check_image(x)
        return self._means(wide(x)).to(x.dtype)
