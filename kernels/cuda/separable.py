"""Rows of separable operators, by three kernels: for banded factors of P, or for products with dense V."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...operators.separable import Separable
from ..banded import Band, axes, kept
from ..device_rows import Scales
from ..row import Row
from . import ops
from .bands import TILES, shared_bytes, three_bands, tiled
from .modal import Modal

__all__ = ["Banded", "Products", "Projected", "separable_row"]

SHARED = 48 * 1024
"""The bytes of shared memory that a block may take, of which every GPU has room for several blocks.

The smallest tile may take twice as many.
"""


def separable_row(operator: Separable):
    """P by three banded factors where every axis has them and their tiles fit a block, else by V V^T.

    The columns of an image that is too high fit no block, and the operator itself then projects.
    """
    factors = tiled_factors(operator)
    if factors is not None:
        return Banded(operator, *factors)
    products = Products(operator)
    return products if products.fits else Projected(operator)


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

    Coefficients over the modes belong to V, which is dense.

    Args:
        operator: The operator, which keeps the constants.
        axes: The factors H, (H H^T)^-1 and H^T of the rows and of the columns.
        tiles: The side of the tiles of every kernel.
    """

    def __init__(self, operator: Separable, axes: list[list[Band]], tiles: list[int]) -> None:
        self.operator, self.products = operator, Products(operator)
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

    def takes_modes(self, row: Row) -> bool:
        """Whether the products take them."""
        return self.products.takes_modes(row)

    def __call__(
        self,
        out: Tensor,
        after: Tensor | None,
        terms: Sequence[Tensor],
        table: Tensor,
        residual: bool,
        scales: Scales | None,
        modal: Modal | None,
        stream: int,
    ) -> None:
        if modal is not None:
            self.products(out, after, terms, table, residual, scales, modal, stream)
            return
        shape = (2, *out.shape[:2], *self.low)
        if self.buffer.shape != shape or self.buffer.device != out.device:
            self.buffer = torch.empty(shape, device=out.device)
        rows, columns = (
            [self.operator.constant(f"cuda band {axis} {k}", lambda v=v: v, out) for k, v in enumerate(parts)]
            for axis, parts in enumerate(self.parts)
        )
        tensors = scales or (None, None)
        ops.separable(out, after, terms, table, residual, *tensors, rows, columns, *self.layouts, self.buffer, stream)


LARGEST = 6144
"""The most that side and rank of the rows may be together (``largest_between`` in csrc/cuda/kernels.h)."""


class Products:
    """The row by three kernels, for the products with V of the columns, of the rows and of the columns again."""

    def __init__(self, operator: Separable) -> None:
        self.operator, self.work = operator, torch.empty(0)
        one = torch.ones(1, 1, dtype=torch.float64)
        self.v = [*[one] * (2 - len(operator.factors)), *(factor.v for factor in operator.factors)]
        self.sides = [(v.shape[0], v.shape[1]) for v in self.v]

    @property
    def fits(self) -> bool:
        """Whether its kernels have room for the columns of an image."""
        return sum(self.sides[0]) <= LARGEST

    def takes_modes(self, row: Row) -> bool:
        """Whether its kernels have room for the columns of an image."""
        return self.fits

    def axes(self, like: Tensor) -> list[list[Tensor]]:
        """V and its transpose for the rows, of which a signal has one, and for the columns."""
        constant = self.operator.constant
        return [
            [
                constant(f"cuda products {axis}", lambda v=v: v.contiguous(), like),
                constant(f"cuda products {axis} transposed", lambda v=v: v.mT.contiguous(), like),
            ]
            for axis, v in enumerate(self.v)
        ]

    def __call__(
        self,
        out: Tensor,
        after: Tensor | None,
        terms: Sequence[Tensor],
        table: Tensor,
        residual: bool,
        scales: Scales | None,
        modal: Modal | None,
        stream: int,
    ) -> None:
        (height, rows), (_, columns) = self.sides
        planes, sets = out.shape[0] * out.shape[1], 1 if modal is None else modal.sums
        size = sets * planes * height * columns
        if self.work.numel() < size or self.work.device != out.device:
            self.work = torch.empty(size, device=out.device)
        factors, more = None, None
        if modal is not None:
            factors = [self._factors(f, out, (rows, columns)) for f in modal.factors]
            more = None if modal.coordinates is None else modal.coordinates.reshape(planes, rows, columns)
        arguments = (out, after, terms, table, residual, *(scales or (None, None)))
        given = (None if modal is None else modal.sets, factors, 1.0, more)
        ops.products(*arguments, *given, *self.axes(out), self.work[:size], stream)

    def _factors(self, f: Tensor, like: Tensor, ranks: tuple[int, int]) -> Tensor:
        """Numbers for every mode as (1 or planes, ranks)."""
        shape = self.operator.singular_values.shape[1:]
        if f.shape[-len(shape) :] == shape and f.numel() == shape.numel():
            return f.reshape(1, *ranks)
        return f.expand(*like.shape[:2], *shape).reshape(-1, *ranks)


class Projected:
    """The row of an operator that projects by its own ``project``, between two linear combinations."""

    def __init__(self, operator: Separable) -> None:
        self.operator = operator

    def takes_modes(self, row: Row) -> bool:
        """False, since ``down`` and ``lift`` of the operator do."""
        return False

    def __call__(
        self,
        out: Tensor,
        after: Tensor | None,
        terms: Sequence[Tensor],
        table: Tensor,
        residual: bool,
        scales: Scales | None,
        modal: Modal | None,
        stream: int,
    ) -> None:
        inner, tensors = torch.empty_like(out, dtype=torch.float32), scales or (None, None)
        ops.combine(inner, terms, table, residual, *tensors, stream)
        field = self.operator.project(inner).contiguous()
        ops.finish(out, after, terms, table, residual, *tensors, field, stream)
