"""Rows of separable operators: three banded kernels, or low-rank matrix products of torch (cuBLAS)."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...operators.separable import Separable, true_float32
from . import ops
from .bands import TILES, Band, factors, shared_bytes, tiled

__all__ = ["Banded", "LowRank", "separable_row"]

SHARED = 48 * 1024
"""Bytes of a block that every GPU has, several blocks at a time; the smallest tile may take twice as many."""

_AXES: WeakKeyDictionary[Separable, list[list[Band] | None]] = WeakKeyDictionary()


def separable_row(operator: Separable):
    """P by three banded factors where every axis has them and their tiles fit a block, else by V V^T."""
    if operator not in _AXES:
        _AXES[operator] = [factors(factor) for factor in operator.factors]
    axes = [axis for axis in _AXES[operator] if axis is not None]
    if len(axes) < len(operator.factors):
        return LowRank(operator)
    if len(axes) == 1:  # the rows of a signal, of which there is one
        axes = [[Band(torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64), 1)] * 3, *axes]
    tiles = [tile_of(rows, columns) for rows, columns in zip(*axes, strict=True)]
    return LowRank(operator) if None in tiles else Banded(operator, axes, [tile for tile in tiles if tile])


def tile_of(rows: Band, columns: Band) -> int | None:
    """The largest tile with which several blocks fit, or one."""
    for tile in TILES:
        limit = SHARED if tile > TILES[-1] else 2 * SHARED
        if shared_bytes(tiled(rows, tile)[1], tiled(columns, tile)[1], tile) <= limit:
            return tile
    return None


class Banded:
    """Three kernels; between them two images of the coordinates at low resolution.

    Args:
        axes: of rows and columns H, (H H^T)^-1 and H^T.
        tiles: of each of the three.
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
        self, out: Tensor, after: Tensor | None, terms: list[Tensor], table: Tensor, residual: bool, stream: int
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
    """x V_c, V_r^T of that, and back up; or V V^T of each axis as one matrix, where that takes fewer operations."""

    def __init__(self, operator: Separable) -> None:
        self.operator = operator
        self.buffers: list[Tensor] = []

    def __call__(
        self, out: Tensor, after: Tensor | None, terms: list[Tensor], table: Tensor, residual: bool, stream: int
    ) -> None:
        if not self.buffers or self.buffers[0].shape != out.shape or self.buffers[0].device != out.device:
            self.buffers = [torch.empty(size, device=out.device) for size in self._sizes(out.shape)]
        inner, *work = self.buffers
        ops.combine(inner, terms, table, residual, stream)
        with true_float32():
            self._project(inner, work)
        ops.finish(out, after, terms, table, residual, inner, stream)

    def _sizes(self, shape: torch.Size) -> list[tuple[int, ...]]:
        """The image to be projected, and what lies between the products: planes, then rows and columns."""
        ranks, sides = [factor.s.numel() for factor in self.operator.factors], shape[2:]
        planes = shape[0] * shape[1]
        if len(ranks) == 1:
            return [shape, (planes, sides[0] if self.operator.dense_projection else ranks[0])]
        if self.operator.dense_projection:
            return [shape, (planes, *sides)]
        return [shape, (planes, sides[0], ranks[1]), (planes, *ranks), (planes, ranks[0], sides[1])]

    def _project(self, x: Tensor, work: list[Tensor]) -> None:
        """x = P x, in place; a product with the columns is one matrix product of all rows of the batch."""
        *rows, columns = (self._factor(axis, x) for axis in range(len(self.operator.factors)))
        flat, image = x.view(-1, x.shape[-1]), x.view(-1, *x.shape[2:])
        rows = [factor.expand(image.shape[0], -1, -1) for factor in rows]
        torch.mm(flat, columns, out=work[0].view(-1, columns.shape[1]))
        if self.operator.dense_projection:
            if rows:
                torch.bmm(rows[0], work[0], out=image)
            else:
                flat.copy_(work[0])
        elif not rows:
            torch.mm(work[0], columns.mT, out=flat)
        else:
            torch.bmm(rows[0].mT, work[0], out=work[1])
            torch.mm(work[1].view(-1, columns.shape[1]), columns.mT, out=work[2].view(-1, x.shape[-1]))
            torch.bmm(rows[0], work[2], out=image)

    def _factor(self, axis: int, like: Tensor) -> Tensor:
        """V (side, rank) of an axis or, with dense projections, V V^T."""
        v = self.operator.factors[axis].v
        dense = self.operator.dense_projection
        return self.operator.constant(f"cuda factor {axis}", lambda: (v @ v.mT if dense else v).contiguous(), like)
