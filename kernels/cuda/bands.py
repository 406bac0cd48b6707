"""Band matrices as csrc/cuda/separable.cuh reads them: taps, starts, and what the tiles of a block depend on."""

from __future__ import annotations

import torch
from torch import Tensor

from ..banded import Band, BandedAxis, arc, band

__all__ = ["TILES", "shared_bytes", "three_bands", "tiled"]

TILES = (32, 16, 8)

NEGLIGIBLE = 1e-9
"""Of the largest entry of (H H^T)^-1, which decays exponentially off the diagonal: a hundredth of float32 rounding."""


def three_bands(axis: BandedAxis) -> list[Band]:
    """H, (H H^T)^-1 and H^T; of the inverse only what is not negligible."""
    down, inverse, up = axis
    inverse = torch.where(inverse.abs() > NEGLIGIBLE * inverse.abs().max(), inverse, 0.0)
    return [down, band(inverse, circular=True), up]


def tiled(band: Band, tile: int) -> tuple[Tensor, int]:
    """First column (tiles,) and number of columns, the same for all, that the rows of each tile lie in, circularly.

    The last of them is at most twice around.
    """
    n, starts = band.columns, band.start.tolist()
    runs = [arc(sorted(set(starts[first : first + tile])), n) for first in range(0, band.rows, tile)]
    extent = max(length for _, length in runs) - 1 + band.width
    if extent >= n:  # all columns, and where a row reaches around the first ones again
        return torch.zeros(len(runs), dtype=torch.int64), max(starts) + band.width
    return torch.tensor([base for base, _ in runs]), extent


def shared_bytes(rows_extent: int, columns_extent: int, tile: int) -> int:
    """Shared memory of a block, as ``banded_shared`` in csrc/cuda/kernels.h says."""
    return 4 * columns_extent * (rows_extent + tile)
