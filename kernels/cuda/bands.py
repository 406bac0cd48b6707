"""Band matrices as csrc/cuda/separable.cuh reads them: taps, starts, and what the tiles of a block depend on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...operators.separable import Factor

__all__ = ["TILES", "Band", "band", "factors", "shared_bytes", "tiled"]

TILES = (32, 16, 8)
LARGEST_CONDITION = 16.0
"""Of H H^T: its inverse loses that factor in float32, and the low-rank form nothing."""

NEGLIGIBLE = 1e-9
"""Of the largest entry of (H H^T)^-1, which decays exponentially off the diagonal: a hundredth of float32 rounding."""


class Band(NamedTuple):
    """Row i of a matrix is zero but for taps[i] (rows, width), in the columns start[i] + t modulo their number."""

    taps: Tensor
    start: Tensor
    columns: int

    @property
    def rows(self) -> int:
        return self.taps.shape[0]


def band(matrix: Tensor) -> Band:
    """The narrowest band, of one width for all rows, that may wrap around the end of a row (circular borders)."""
    n = matrix.shape[1]
    starts, widths = [], []
    for nonzero in (matrix != 0).numpy():
        places = nonzero.nonzero()[0].tolist() or [0]
        # the widest gap between neighbours in the circle of columns lies outside the band
        ends = [*places[1:], places[0] + n]
        gap, k = max((end - place, k) for k, (place, end) in enumerate(zip(places, ends, strict=True)))
        starts.append(ends[k] % n)
        widths.append(n - gap + 1)
    width, start = max(widths), torch.tensor(starts)
    index = (start[:, None] + torch.arange(width)) % n
    return Band(matrix.gather(1, index).contiguous(), start, n)


def tiled(band: Band, tile: int) -> tuple[Tensor, int]:
    """First column (tiles,) and number of columns, the same for all, that the rows of each tile lie in, circularly.

    The last of them is at most twice around.
    """
    n, width, starts = band.columns, band.taps.shape[1], band.start.tolist()
    bases, extents = [], []
    for first in range(0, band.rows, tile):
        places = sorted(set(starts[first : first + tile]))
        ends = [*places[1:], places[0] + n]
        _, k = max((end - place, k) for k, (place, end) in enumerate(zip(places, ends, strict=True)))
        base, last = ends[k] % n, places[k]
        bases.append(base)
        extents.append((last - base) % n + width)
    extent = max(extents)
    if extent >= n:  # all columns, and where a row reaches around the first ones again
        return torch.zeros(len(bases), dtype=torch.int64), max(starts) + width
    return torch.tensor(bases), extent


def shared_bytes(rows_extent: int, columns_extent: int, tile: int) -> int:
    """Shared memory of a block, as ``banded_shared`` in csrc/cuda/kernels.h says."""
    return 4 * columns_extent * (rows_extent + tile)


def factors(factor: Factor) -> list[Band] | None:
    """P = H^T (H H^T)^-1 H of one axis: H, the inverse and H^T as bands; None where they are not narrow.

    H must have bands of a quarter of a row at most, and H H^T must not be far from orthogonal.
    """
    u, s, v = factor
    if (s[0] / s[-1]) ** 2 > LARGEST_CONDITION:
        return None
    h = (u * s) @ v.mT
    h = torch.where(h.abs() > 1e-12 * h.abs().max(), h, 0.0)  # zeros but for rounding of the SVD
    down = band(h)
    if 4 * down.taps.shape[1] > down.columns:
        return None
    inverse = (u * s**-2) @ u.mT
    inverse = torch.where(inverse.abs() > NEGLIGIBLE * inverse.abs().max(), inverse, 0.0)
    return [down, band(inverse), band(h.mT)]
