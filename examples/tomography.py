"""Parallel-beam tomography, which measures line sums of an image: ``python examples/tomography.py``.

The example shows an operator that is known only by its products with H and H^T.
"""

from __future__ import annotations

import math

import torch
from phantom import fitted_prior, heads, psnr
from torch import Tensor

import ccfast
from ccfast.operators import LinearOperator


class Tomography(LinearOperator):
    """Projections (C, angles, bins) of every channel of a square image (C, side, side).

    Every pixel gives its value to the two bins nearest to where its centre falls, by linear interpolation. The angles
    are equally spaced in [0, pi), the bins are one pixel wide, and H is scaled so that ||H|| is near 1. H^T reads with
    the weights that H writes with, so that it is the exact adjoint, which rotating back is of rotating and summing not.
    H+ y is the minimum-norm image after ``iterations`` conjugate gradient steps; few steps leave out the small singular
    values.
    """

    def __init__(self, shape: tuple[int, int, int], angles: int, iterations: int = 30) -> None:
        if len(shape) != 3 or shape[1] != shape[2]:
            raise ValueError(f"Tomography: shape must be (C, side, side), got {shape}")
        channels, side, _ = shape
        bins = math.ceil(side * math.sqrt(2)) + 2
        axis = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
        y, x = (value.flatten() for value in torch.meshgrid(axis, axis, indexing="ij"))
        theta = torch.arange(angles, dtype=torch.float64)[:, None] * (math.pi / angles)
        place = x * theta.cos() + y * theta.sin() + (bins - 1) / 2  # It is (angles, pixels), from 0 to bins - 1.
        low = place.floor()
        scale = 1 / math.sqrt(side * angles)
        self.bins = (low.long() + bins * torch.arange(angles)[:, None]).flatten()
        self.weights = ((1 - (place - low)) * scale, (place - low) * scale)
        super().__init__(
            lambda x: self._project(x.flatten(2), angles * bins).reshape(-1, channels, angles, bins),
            lambda y: self._back(y.flatten(2), angles).reshape(-1, *shape),
            shape,
            (channels, angles, bins),
            iterations=iterations,
        )

    def _constants(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low, high = (self.constant(f"weights {k}", lambda k=k: self.weights[k], like) for k in (0, 1))
        return self.constant("bins", lambda: self.bins, like), low, high

    def _project(self, x: Tensor, size: int) -> Tensor:
        bins, low, high = self._constants(x)
        y = x.new_zeros((*x.shape[:2], size))
        y = y.index_add(2, bins, (x[:, :, None] * low).flatten(2))
        return y.index_add(2, bins + 1, (x[:, :, None] * high).flatten(2))

    def _back(self, y: Tensor, angles: int) -> Tensor:
        bins, low, high = self._constants(y)
        near, far = (y[:, :, index].unflatten(2, (angles, -1)) for index in (bins, bins + 1))
        return (near * low + far * high).sum(2)


def main(side: int = 32) -> tuple[float, float]:
    """PSNR of H+ y and of the restoration."""
    x = heads(1, side, seed=1)[None]
    operator = Tomography((1, side, side), angles=side // 4)
    y = operator.forward(x)
    sampler = ccfast.Sampler(fitted_prior(heads(600, side, seed=0)[:, None]), operator, start=0.6)
    return psnr(operator.pinv(y), x), psnr(sampler(y, seed=0), x)


if __name__ == "__main__":
    before, after = main()
    print(f"H+ y {before:.2f} dB, restored {after:.2f} dB")
