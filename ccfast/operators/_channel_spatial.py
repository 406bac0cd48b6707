"""A weighted mean over the channels, then an operator on the channel that is left."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .grayscale import Grayscale
from .operator import Operator, wide

__all__ = ["ChannelSpatial"]


class ChannelSpatial(Operator):
    """Hx = A (sum_c weights[c] x[c]): the Kronecker product of the two thin SVDs.

        s = ||weights|| s_A,    V = (weights / ||weights||) x V_A,    U = U_A

    Coordinates are those of A. What acts on all channels alike commutes with the mean, so that this is also the mean
    after A.

    Args:
        shape: of one image, (C, H, W) or (C, L).
        weights: C numbers, as for ``Grayscale``.
        spatial: A, an operator for images with one channel of these sides.

    Raises:
        ValueError: weights that Grayscale refuses, or an operator of another shape.
    """

    kind = "dense"

    def __init__(self, shape: tuple[int, ...], weights: Any, spatial: Operator) -> None:
        self.channel = Grayscale(shape, weights)
        if spatial.shape != self.channel.measurement_shape:
            raise ValueError(
                f"{type(self).__name__}: spatial must take images of shape {self.channel.measurement_shape}, "
                f"got {spatial!r}"
            )
        super().__init__(shape, spatial.measurement_shape)
        self.spatial, self.batch = spatial, spatial.batch
        self.singular_values = self.channel.gain * spatial.singular_values

    def down(self, x: Tensor) -> Tensor:
        return self.spatial.down(self.channel.down(wide(x))).to(x.dtype)

    def lift(self, c: Tensor) -> Tensor:
        return self.channel.lift(self.spatial.lift(wide(c))).to(c.dtype)

    def encode(self, y: Tensor) -> Tensor:
        return self.channel.encode(self.spatial.encode(wide(y))).to(y.dtype)

    def decode(self, c: Tensor) -> Tensor:
        return self.spatial.decode(c)

    def repeat(self, n: int) -> Operator:
        spatial = self.spatial.repeat(n)
        return self if spatial is self.spatial else ChannelSpatial(self.shape, self.channel.weights, spatial)
