"""A soft mask, in which every entry is observed with a weight of its own, and soft prefixes of action chunks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ._diagonal import Diagonal
from .operator import wide

__all__ = ["SoftMask", "soft_prefix"]


class SoftMask(Diagonal):
    """Hx = weights * x: singular values are the weights, the coordinates are the observed entries of the image.

    The measurement is the weighted image. What a weight w in (0, 1) says is how much noise an entry has: with
    ``noise_std`` its value y / w has the standard deviation noise_std / w. Without noise y / w is exact, and every
    entry with a positive weight counts as fully observed.

    Args:
        weights: finite and >= 0, of the shapes that ``Inpainting`` takes for its mask.
        shape: of one image, (C, H, W) or (C, L); needed as for ``Inpainting``.

    Raises:
        ValueError: a negative weight, an image with zeros only, or weights that do not fit shape.
    """

    argument = "weights"
    exchangeable = True

    def __init__(self, weights: Any, shape: tuple[int, ...] | None = None) -> None:
        super().__init__(weights, shape)

    def check_values(self, values: Tensor) -> None:
        if (values < 0).any():
            raise ValueError(f"{type(self).__name__}: weights must not be negative, got values from {values.min()}")

    def encode(self, y: Tensor) -> Tensor:
        def make() -> Tensor:
            s = self.singular_values
            return torch.where(s > 0, 1 / s.where(s > 0, 1.0), 0.0)

        return (wide(y) * self.constant("inverse", make, y)).to(y.dtype)


def soft_prefix(length: int, frozen: int, end: int) -> Tensor:
    """Weights (1, length) of a chunk that continues the one before: 1, then falling, then 0.

        w_i = 1 for i < frozen,  c (e^c - 1)/(e - 1) with c = (end - i)/(end - frozen + 1) up to end,  0 from end on

    This is the soft mask of real-time chunking (Black, Galliker and Levine, NeurIPS 2025, arXiv 2506.07339), where it
    is the factor of the guidance residual. It serves as the weights of a ``SoftMask`` for signals (C, length), where C
    is the dimension of an action.

    Args:
        length: of the chunk.
        frozen: number of actions that will be executed whatever the new chunk says.
        end: index from which on nothing is known; frozen <= end <= length, and at least 1.

    Raises:
        ValueError: numbers against these rules.
    """
    if not (all(isinstance(n, int) for n in (length, frozen, end)) and 0 <= frozen <= end <= length and end > 0):
        raise ValueError(
            f"soft_prefix: must have integers 0 <= frozen <= end <= length and end > 0, got {frozen}, {end}, {length}"
        )
    index = torch.arange(length, dtype=torch.float64)
    c = (end - index) / (end - frozen + 1)
    falling = c * torch.expm1(c) / math.expm1(1.0)
    return torch.where(index < frozen, 1.0, torch.where(index < end, falling, 0.0))[None]
