"""Rows of separable operators, by one op for banded factors or by torch's low-rank matrix products (MKL)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...operators.separable import Separable
from ..banded import BandedAxis, axes, kept
from ..low_rank import LowRankProducts
from . import ops

__all__ = ["Banded", "LowRank", "separable_row"]

_FLOAT = torch.empty(0)


def separable_row(operator: Separable):
    """P by three banded factors where every axis has them, else by V V^T."""
    factors = banded_factors(operator)
    return LowRank(operator) if factors is None else Banded(factors)


@kept
def banded_factors(operator: Separable) -> list[list[Tensor]] | None:
    """The banded factors of the rows and of the columns, or None where an axis has none."""
    found = axes(operator, circular=False)
    return None if found is None else [parts(axis) for axis in found]


def parts(axis: BandedAxis) -> list[Tensor]:
    """The taps and starts of H, those of H^T, and the inverse, in the order and the dtypes of the op."""
    down, inverse, up = axis
    return [down.taps.float(), down.start, up.taps.float(), up.start, inverse.float().contiguous()]


class Banded:
    """The row by one op. Between its two sweeps over the image lies an image at low resolution."""

    def __init__(self, axes: list[list[Tensor]]) -> None:
        self.rows, self.columns = axes
        self.low = (self.rows[1].numel(), self.columns[1].numel())
        self.scratch = torch.empty(0)

    def __call__(self, out: Tensor, after: Tensor | None, c_in: float, terms: list[Tensor], *numbers: Any) -> None:
        direct, projected, *scaled = numbers
        shape = (*out.shape[:2], *self.low)
        if self.scratch.shape != shape:
            self.scratch = torch.empty(shape)
        operands = (terms, direct, projected, *scaled)
        ops.separable(out, after, c_in, *operands, self.rows, self.columns, self.scratch)


class LowRank:
    """The row by matrix products of torch (MKL) between two linear combinations."""

    def __init__(self, operator: Separable) -> None:
        self.products = LowRankProducts(operator)
        self.factors = self.products.factors(_FLOAT)
        self.shape, self.work, self.scratch = torch.Size(), list[Tensor](), ops.Scratch()

    def __call__(self, out: Tensor, after: Tensor | None, c_in: float, terms: list[Tensor], *numbers: Any) -> None:
        direct, projected, *scaled = numbers
        if self.shape != out.shape:
            self.shape, self.work = out.shape, self.products.work(out)
        inner = self.scratch.like(out)
        ops.lincomb(inner, None, 1.0, terms, projected, *scaled)
        self.products.project(inner, self.factors, self.work)
        ops.lincomb(out, after, c_in, [*terms, inner], [*direct, 1.0], *scaled)
