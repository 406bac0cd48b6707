"""P = H^T (H H^T)^-1 H of one axis by band matrices, as the kernels of the CPU and of the GPU read it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..operators.separable import Factor, Separable

__all__ = ["Band", "BandedAxis", "arc", "axes", "band"]

LARGEST_CONDITION = 16.0
"""Of H H^T: its inverse loses that factor in float32, and the low-rank form nothing."""

ROUNDING = 1e-12
"""Of the largest entry of H: what its SVD leaves where H is zero stays below."""


class Band(NamedTuple):
    """Row i of a matrix is zero but for taps[i] (rows, width), in the columns start[i] + t modulo their number."""

    taps: Tensor
    start: Tensor
    columns: int

    @property
    def rows(self) -> int:
        return self.taps.shape[0]

    @property
    def width(self) -> int:
        return self.taps.shape[1]


class BandedAxis(NamedTuple):
    """P of one axis: H, (H H^T)^-1 as it is, and H^T."""

    down: Band
    inverse: Tensor
    up: Band


def arc(places: list[int], n: int) -> tuple[int, int]:
    """First point and length of the shortest run of points that holds all ``places``, ascending, on a circle of n."""
    ends = [*places[1:], places[0] + n]  # the widest gap between neighbours lies outside of it
    gap, k = max((end - place, k) for k, (place, end) in enumerate(zip(places, ends, strict=True)))
    return ends[k] % n, n - gap + 1


def band(matrix: Tensor, circular: bool) -> Band:
    """The narrowest band, of one width for all rows.

    Args:
        circular: it may wrap around the end of a row; else it lies inside the columns.
    """
    n = matrix.shape[1]
    runs = []
    for nonzero in (matrix != 0).numpy():
        places = nonzero.nonzero()[0].tolist() or [0]
        runs.append(arc(places, n) if circular else (places[0], places[-1] - places[0] + 1))
    width, start = max(length for _, length in runs), torch.tensor([first for first, _ in runs])
    if not circular:
        start = start.clamp(max=n - width)
    index = (start[:, None] + torch.arange(width)) % n
    return Band(matrix.gather(1, index).contiguous(), start, n)


def banded(factor: Factor, circular: bool) -> BandedAxis | None:
    """The three parts, float64.

    None where H is not banded (more than a quarter of a row), or where H H^T is too far from orthogonal.
    """
    u, s, v = factor
    if (s[0] / s[-1]) ** 2 > LARGEST_CONDITION:
        return None
    h = (u * s) @ v.mT
    h = torch.where(h.abs() > ROUNDING * h.abs().max(), h, 0.0)
    down = band(h, circular)
    if 4 * down.width > down.columns:
        return None
    return BandedAxis(down, (u * s**-2) @ u.mT, band(h.mT, circular))


def axes(operator: Separable, circular: bool) -> list[BandedAxis] | None:
    """Rows and columns of an operator; None where an axis is not banded. A signal has one row."""
    found = [axis for factor in operator.factors if (axis := banded(factor, circular)) is not None]
    if len(found) < len(operator.factors):
        return None
    return [*[_one_row()] * (2 - len(found)), *found]


def _one_row() -> BandedAxis:
    """The identity of one row."""
    one = torch.ones(1, 1, dtype=torch.float64)
    return BandedAxis(band(one, False), one, band(one, False))
