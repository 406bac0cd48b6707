"""Residuals and updates of the backends whose kernels read the coefficients of a row from a table on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from . import reference
from .row import Normal, Ops, Row, Weighted

__all__ = [
    "RESIDUAL",
    "Layout",
    "ModalKernel",
    "RowKernel",
    "RowKernels",
    "Scales",
    "WeightedKernel",
    "bind_rows",
    "scales_of",
    "table_of",
    "within",
]


class Layout(NamedTuple):
    """The terms of a row that have an a_k and those that have a b_k, as sets of bits by position (``Row.layout``)."""

    direct: int
    projected: int
    residual: bool = False


RESIDUAL = Layout(0b001, 0b110, residual=True)
"""The layout of ybar - P (p x + q F), whose terms are ybar, x and F."""


class Scales(NamedTuple):
    """The tensors c_k among the coefficients of a row, and the places k of their terms."""

    tensors: Sequence[Tensor]
    places: Sequence[int]


RowKernel = Callable[[Tensor, "Tensor | None", Sequence[Tensor], Tensor, Layout, "Scales | None"], None]
"""Called as (out, next, terms, table, layout, scales), it computes a row without coefficients over the modes:

    out = sum_k c_k a_k T_k + P(sum_k c_k b_k T_k),    next = c_in out
"""


class ModalKernel(Protocol):
    """Computes a row that has coefficients over the modes, whose terms follow the others."""

    def __call__(
        self, row: Row, out: Tensor, after: Tensor | None, terms: Sequence[Tensor], table: Tensor, /
    ) -> None: ...


class WeightedKernel(Protocol):
    """Computes V weight (encode(y) - V^T (p x + q F)) from the terms x and F and the numbers p and q of the table."""

    def __call__(self, out: Tensor, terms: Sequence[Tensor], table: Tensor, weighted: Weighted, /) -> None: ...


class RowKernels(NamedTuple):
    """The kernels of one operator.

    Attributes:
        terms: Called as (terms, out, next), it raises for tensors that the kernels cannot take, and returns the terms
            as the kernels read them.
        project: The kernel of rows that have a b_k.
        combine: The kernel of rows that have none.
        modal: The kernel of rows with coefficients over the modes.
        weighted: The kernel of residuals that have a weight over the modes.
    """

    terms: Callable[[Sequence[Tensor], Tensor, Tensor | None], Sequence[Tensor]]
    project: RowKernel
    combine: RowKernel
    modal: ModalKernel
    weighted: WeightedKernel


def bind_rows(kernels: RowKernels, normal: Normal) -> Ops:
    """The operations of the loop by these kernels. A table is made where the caller has none on the device."""

    def residual(
        terms: Sequence[Tensor], p: float, q: float, out: Tensor, weighted: Weighted | None, table: Tensor | None
    ) -> None:
        terms = kernels.terms(terms, out, None)
        if not out.numel():
            return
        table = table_of([p, q], out) if table is None else table
        if weighted is None:
            kernels.project(out, None, terms, table, RESIDUAL, None)
        else:
            kernels.weighted(out, terms[1:], table, weighted)

    def update(
        row: Row, tensors: list[Tensor], out: Tensor, after: Tensor | None, c_in: float, table: Tensor | None = None
    ) -> None:
        terms = kernels.terms(tensors, out, after)
        if out.numel():
            table = table_of(row.values(c_in), out) if table is None else table
            if row.modes:
                kernels.modal(row, out, after, terms, table)
            else:
                run = kernels.project if row.projected else kernels.combine
                run(out, after, terms, table, Layout(*row.layout), scales_of(row))

    return Ops(reference.denoised, residual, update, normal)


def scales_of(row: Row) -> Scales | None:
    """The tensors among the coefficients of a row, or None where it has none."""
    return None if row.scales is None or row.scaled is None else Scales(row.scales, row.scaled)


def within(scales: Scales | None, count: int) -> tuple[list[Tensor] | None, list[int] | None]:
    """The tensors of the first terms of a row, and their places."""
    found = [pair for pair in zip(*scales, strict=True) if pair[1] < count] if scales else []
    return ([tensor for tensor, _ in found], [place for _, place in found]) if found else (None, None)


def table_of(values: Sequence[float], like: Tensor) -> Tensor:
    """Coefficients as a float32 tensor on the device of ``like``, which the kernels read."""
    return torch.tensor(values, dtype=torch.float32, device=like.device)
