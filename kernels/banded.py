"""P = H^T (H H^T)^-1 H along one axis as three factors, two of them bands, for the kernels of the CPU and the GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..operators.separable import Factor, Separable

__all__ = ["Band", "BandedAxis", "arc", "axes", "band", "kept"]

Made = TypeVar("Made")

LARGEST_CONDITION = 16.0
"""The largest condition number of H H^T for the banded form, whose inverse multiplies rounding errors by that factor.

The low-rank form multiplies them by nothing.
"""

ROUNDING = 1e-12
"""Entries of H below this fraction of the largest one count as zeros, which its SVD gives back with rounding errors."""


class Band(NamedTuple):
    """A matrix whose rows are zero outside of a window: row i has taps[i, t] in column (start[i] + t) % columns.

    Attributes:
        taps: The values in the windows, (rows, width).
        start: The first column of every window, (rows,) int64.
        columns: The number of columns of the matrix.
    """

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
    """The factors of P along one axis: the band H, the full matrix (H H^T)^-1, and the band H^T."""

    down: Band
    inverse: Tensor
    up: Band


def arc(places: list[int], n: int) -> tuple[int, int]:
    """First point and length of the shortest run, on a circle of n points, that holds all ``places`` (ascending)."""
    ends = [*places[1:], places[0] + n]  # The run leaves out the widest gap between neighbours.
    gap, k = max((end - place, k) for k, (place, end) in enumerate(zip(places, ends, strict=True)))
    return ends[k] % n, n - gap + 1


def band(matrix: Tensor, circular: bool) -> Band:
    """The matrix as the narrowest band, whose windows have one width.

    Args:
        matrix: A matrix (rows, columns).
        circular: Whether a window may wrap around the end of a row.
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
    """The factors of one axis in float64.

    They are None where the windows of H span more than a quarter of a row, or where H H^T is badly conditioned.
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
    """The factors of the rows and of the columns, or None where an axis has none.

    A signal has no axis of rows; the identity takes its place.
    """
    found = [axis for factor in operator.factors if (axis := banded(factor, circular)) is not None]
    if len(found) < len(operator.factors):
        return None
    return [*[_one_row()] * (2 - len(found)), *found]


def kept(make: Callable[[Separable], Made]) -> Callable[[Separable], Made]:
    """Decorate a function of an operator, so that what it makes is kept for as long as the operator lives."""
    made: WeakKeyDictionary[Separable, Made] = WeakKeyDictionary()

    @wraps(make)
    def get(operator: Separable) -> Made:
        if operator not in made:
            made[operator] = make(operator)
        return made[operator]

    return get


def _one_row() -> BandedAxis:
    """The identity as the factors of an axis of length 1."""
    one = torch.ones(1, 1, dtype=torch.float64)
    return BandedAxis(band(one, False), one, band(one, False))
