"""Rows of separable operators, by three kernels for banded factors or by torch's low-rank matrix products (cuBLAS)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...operators.separable import Separable
from ..banded import Band, axes, kept
from ..low_rank import LowRankProducts
from . import ops
from .bands import TILES, shared_bytes, three_bands, tiled

__all__ = ["Banded", "LowRank", "separable_row"]

SHARED = 48 * 1024
"""The bytes of shared memory that a block may take, of which every GPU has room for several blocks.

The smallest tile may take twice as many.
"""


def separable_row(operator: Separable):
    """P by three banded factors where every axis has them and their tiles fit a block, else by V V^T."""
    factors = tiled_factors(operator)
    return LowRank(operator) if factors is None else Banded(operator, *factors)


@kept
def tiled_factors(operator: Separable) -> tuple[list[list[Band]], list[int]] | None:
    """The banded factors of the rows and of the columns, and the side of the tiles of each kernel."""
    found = axes(operator, circular=True)
    if found is None:
        return None
    bands = [three_bands(axis) for axis in found]
    tiles = [tile for rows, columns in zip(*bands, strict=True) if (tile := tile_of(rows, columns)) is not None]
    return (bands, tiles) if len(tiles) == len(bands[0]) else None


def tile_of(rows: Band, columns: Band) -> int | None:
    """The largest tile whose shared memory is within its limit, or None where no tile is."""
    for tile in TILES:
        limit = SHARED if tile > TILES[-1] else 2 * SHARED
        if shared_bytes(tiled(rows, tile)[1], tiled(columns, tile)[1], tile) <= limit:
            return tile
    return None


class Banded:
    """The row by three kernels, one for each factor. Between them lie two images at low resolution.

    Args:
        operator: The operator, which keeps the constants.
        axes: The factors H, (H H^T)^-1 and H^T of the rows and of the columns.
        tiles: The side of the tiles of every kernel.
    """

    def __init__(self, operator: Separable, axes: list[list[Band]], tiles: list[int]) -> None:
        self.operator = operator
        self.low = tuple(axis[0].rows for axis in axes)
        self.parts: list[list[Tensor]] = []
        self.layouts: list[list[int]] = []
        for axis in axes:
            parts, extents = [], []
            for part, tile in zip(axis, tiles, strict=True):
                base, extent = tiled(part, tile)
                parts += [part.taps.mT.contiguous(), part.start.int(), base.int()]
                extents += [tile, extent]
            self.parts.append(parts)
            self.layouts.append(extents)
        self.buffer = torch.empty(0)

    def __call__(
        self, out: Tensor, after: Tensor | None, terms: Sequence[Tensor], table: Tensor, residual: bool, stream: int
    ) -> None:
        shape = (2, *out.shape[:2], *self.low)
        if self.buffer.shape != shape or self.buffer.device != out.device:
            self.buffer = torch.empty(shape, device=out.device)
        rows, columns = (
            [self.operator.constant(f"cuda band {axis} {k}", lambda v=v: v, out) for k, v in enumerate(parts)]
            for axis, parts in enumerate(self.parts)
        )
        ops.separable(out, after, terms, table, residual, rows, columns, *self.layouts, self.buffer, stream)


class LowRank:
    """The row by matrix products of torch (cuBLAS) between two linear combinations."""

    def __init__(self, operator: Separable) -> None:
        self.products = LowRankProducts(operator)
        self.inner, self.work = torch.empty(0), list[Tensor]()

    def __call__(
        self, out: Tensor, after: Tensor | None, terms: Sequence[Tensor], table: Tensor, residual: bool, stream: int
    ) -> None:
        if self.inner.shape != out.shape or self.inner.device != out.device:
            self.inner, self.work = torch.empty(out.shape, device=out.device), self.products.work(out)
        ops.combine(self.inner, terms, table, residual, stream)
        self.products.project(self.inner, self.products.factors(out), self.work)
        ops.finish(out, after, terms, table, residual, self.inner, stream)
