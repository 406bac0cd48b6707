"""Band matrices in the form that csrc/cuda/separable.cuh reads, with the columns that every tile of rows depends on."""

from __future__ import annotations

import torch
from torch import Tensor

from ..banded import Band, BandedAxis, arc, band

__all__ = ["TILES", "shared_bytes", "three_bands", "tiled"]

TILES = (32, 16, 8)
"""The sides of the square tiles that a block can make."""

NEGLIGIBLE = 1e-9
"""Entries of (H H^T)^-1 below this fraction of the largest one are dropped: it is a hundredth of float32 rounding.

The entries decay exponentially off the diagonal, so that what is left is a band.
"""


def three_bands(axis: BandedAxis) -> list[Band]:
    """H, (H H^T)^-1 without its negligible entries, and H^T."""
    down, inverse, up = axis
    inverse = torch.where(inverse.abs() > NEGLIGIBLE * inverse.abs().max(), inverse, 0.0)
    return [down, band(inverse, circular=True), up]


def tiled(band: Band, tile: int) -> tuple[Tensor, int]:
    """The columns that the rows of every tile depend on: their first, (tiles,), and their number, one for all tiles.

    They are counted on a circle, and go around it less than twice.
    """
    n, starts = band.columns, band.start.tolist()
    runs = [arc(sorted(set(starts[first : first + tile])), n) for first in range(0, band.rows, tile)]
    extent = max(length for _, length in runs) - 1 + band.width
    if extent >= n:  # A tile depends on all columns, and where a row wraps around the first ones follow again.
        return torch.zeros(len(runs), dtype=torch.int64), max(starts) + band.width
    return torch.tensor([base for base, _ in runs]), extent


def shared_bytes(rows_extent: int, columns_extent: int, tile: int) -> int:
    """The bytes of shared memory that a block takes, as ``banded_shared`` in csrc/cuda/kernels.h computes them."""
    return 4 * columns_extent * (rows_extent + tile)
