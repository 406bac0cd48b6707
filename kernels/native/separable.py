"""Rows of separable operators: banded factors in one op, any others by low-rank matrix products of torch (MKL)."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...operators.separable import Factor, Separable, true_float32
from . import ops

__all__ = ["separable_row"]

_FLOAT = torch.empty(0)
_LARGEST_CONDITION = 16.0  # of H H^T: its inverse loses that factor in float32, and the low-rank form nothing
_AXES: WeakKeyDictionary[Separable, list[list[Tensor] | None]] = WeakKeyDictionary()


def separable_row(operator: Separable):
    """P by three banded factors where every axis has them, else by V V^T."""
    if operator not in _AXES:
        _AXES[operator] = [banded(factor) for factor in operator.factors]
    axes = [axis for axis in _AXES[operator] if axis is not None]
    return LowRank(operator) if len(axes) < len(operator.factors) else Banded(axes)


def banded(factor: Factor) -> list[Tensor] | None:
    """P = H^T (H H^T)^-1 H of one axis: taps and starts of the rows of H, the same of H^T, and the inverse.

    None where H is not banded (less than a quarter of a row), or where H H^T is too far from orthogonal.
    """
    u, s, v = factor
    if (s[0] / s[-1]) ** 2 > _LARGEST_CONDITION:
        return None
    h = (u * s) @ v.mT
    h = torch.where(h.abs() > 1e-12 * h.abs().max(), h, 0.0)  # zeros but for rounding of the SVD
    (taps, starts), (taps_t, starts_t) = band(h), band(h.mT)
    if 4 * taps.shape[1] > h.shape[1]:
        return None
    inverse = (u * s**-2) @ u.mT
    return [taps.float(), starts, taps_t.float(), starts_t, inverse.float().contiguous()]


def band(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, width) taps and (rows,) starts such that row i is zero but for taps[i] from column starts[i] on."""
    columns = matrix.shape[1]
    nonzero = matrix != 0
    first = torch.where(nonzero.any(1), nonzero.int().argmax(1), 0)
    last = torch.where(nonzero.any(1), columns - 1 - nonzero.flip(1).int().argmax(1), 0)
    width = int((last - first).max()) + 1
    starts = first.clamp(max=columns - width)
    index = starts[:, None] + torch.arange(width)
    return matrix.gather(1, index).contiguous(), starts.contiguous()


class Banded:
    """One op; between its two sweeps only the coordinates of the low-resolution image."""

    def __init__(self, axes: list[list[Tensor]]) -> None:
        identity = [torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)]
        signal = [*identity, *identity, torch.ones(1, 1)]  # the rows of a signal, of which there is one
        self.rows, self.columns = axes if len(axes) == 2 else (signal, axes[0])
        self.low = (self.rows[1].numel(), self.columns[1].numel())
        self.scratch = torch.empty(0)

    def __call__(
        self,
        out: Tensor,
        after: Tensor | None,
        c_in: float,
        terms: list[Tensor],
        direct: list[float],
        projected: list[float],
        scales: Sequence[Tensor] | None = None,
        scaled: Sequence[int] | None = None,
    ) -> None:
        shape = (*out.shape[:2], *self.low)
        if self.scratch.shape != shape:
            self.scratch = torch.empty(shape)
        operands = (terms, direct, projected, scales, scaled)
        ops.separable(out, after, c_in, *operands, self.rows, self.columns, self.scratch)


class LowRank:
    """x V_c, V_r^T of that, and back up; or V V^T of each axis as one matrix, where that takes fewer operations."""

    def __init__(self, operator: Separable) -> None:
        self.sides = operator.shape[1:]
        vs = [factor.v for factor in operator.factors]
        if operator.dense_projection:
            vs = [v @ v.mT for v in vs]
        # (side, rank) each, columns last; ``up`` is False where one matrix is the whole projection of its axis
        self.up = not operator.dense_projection
        names = [f"native factor {axis}" for axis in range(len(vs))]
        self.factors = [
            operator.constant(name, lambda v=v: v.contiguous(), _FLOAT) for name, v in zip(names, vs, strict=True)
        ]
        self.shape, self.buffers, self.scratch = torch.Size(), list[Tensor](), ops.Scratch()

    def __call__(
        self,
        out: Tensor,
        after: Tensor | None,
        c_in: float,
        terms: list[Tensor],
        direct: list[float],
        projected: list[float],
        scales: Sequence[Tensor] | None = None,
        scaled: Sequence[int] | None = None,
    ) -> None:
        planes = out.shape[0] * out.shape[1]
        if self.shape != out.shape:
            self.shape, self.buffers = out.shape, self._allocate(planes)
        inner, work = self.scratch.like(out), self.buffers
        ops.lincomb(inner, None, 1.0, terms, projected, scales, scaled)
        with true_float32():
            self._project(inner, work, planes)
        ops.lincomb(out, after, c_in, [*terms, inner], [*direct, 1.0], scales, scaled)

    def _allocate(self, planes: int) -> list[Tensor]:
        """What lies between the products; of a signal only one narrow signal."""
        ranks = [v.shape[1] for v in self.factors]
        if len(ranks) == 1:
            sizes = [(planes, ranks[0])]
        elif self.up:
            sizes = [(planes, self.sides[0], ranks[1]), (planes, *ranks), (planes, ranks[0], self.sides[1])]
        else:
            sizes = [(planes, *self.sides)]
        return [torch.empty(size) for size in sizes]

    def _project(self, x: Tensor, work: list[Tensor], planes: int) -> None:
        """x = P x, in place."""
        columns = self.factors[-1]
        flat = x.view(-1, self.sides[-1])
        torch.mm(flat, columns, out=work[0].view(-1, columns.shape[1]))
        if len(self.factors) == 1:
            if self.up:
                torch.mm(work[0], columns.mT, out=flat)
            else:
                flat.copy_(work[0])
            return
        rows, image = self.factors[0].expand(planes, -1, -1), x.view(planes, *self.sides)
        if not self.up:
            torch.bmm(rows, work[0], out=image)
            return
        torch.bmm(rows.mT, work[0], out=work[1])
        torch.mm(work[1].view(-1, columns.shape[1]), columns.mT, out=work[2].view(-1, self.sides[-1]))
        torch.bmm(rows, work[2], out=image)
