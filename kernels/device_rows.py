"""Residuals and updates of the backends whose kernels read the coefficients of a row from a table on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import reference
from .row import Normal, Ops, Row, Weighted

__all__ = ["RESIDUAL", "Layout", "RowKernel", "RowKernels", "bind_rows", "table_of"]


class Layout(NamedTuple):
    """The terms of a row that have an a_k and those that have a b_k, as sets of bits by position (``Row.layout``)."""

    direct: int
    projected: int
    residual: bool = False


RESIDUAL = Layout(0b001, 0b110, residual=True)
"""The layout of ybar - P (p x + q F), whose terms are ybar, x and F."""

RowKernel = Callable[[Tensor, "Tensor | None", Sequence[Tensor], Tensor, Layout], None]
"""Called as (out, next, terms, table, layout), it computes out = sum_k a_k T_k + P(sum_k b_k T_k), next = c_in out."""


class RowKernels(NamedTuple):
    """The kernels of one operator.

    Attributes:
        terms: Called as (terms, out, next), it raises for tensors that the kernels cannot take, and returns the terms
            as the kernels read them.
        project: The kernel of rows that have a b_k.
        combine: The kernel of rows that have none.
    """

    terms: Callable[[Sequence[Tensor], Tensor, Tensor | None], Sequence[Tensor]]
    project: RowKernel
    combine: RowKernel


def bind_rows(kernels: RowKernels, normal: Normal) -> Ops:
    """The operations of the loop by these kernels. A table is made where the caller has none on the device."""

    def residual(
        terms: Sequence[Tensor], p: float, q: float, out: Tensor, weighted: Weighted | None, table: Tensor | None
    ) -> None:
        terms = kernels.terms(terms, out, None)
        if out.numel():
            kernels.project(out, None, terms, table_of([p, q], out) if table is None else table, RESIDUAL)

    def update(
        row: Row, tensors: list[Tensor], out: Tensor, after: Tensor | None, c_in: float, table: Tensor | None = None
    ) -> None:
        terms = kernels.terms(tensors, out, after)
        if out.numel():
            run = kernels.project if row.projected else kernels.combine
            table = table_of(row.values(c_in), out) if table is None else table
            run(out, after, terms, table, Layout(*row.layout))

    return Ops(reference.denoised, residual, update, normal)


def table_of(values: Sequence[float], like: Tensor) -> Tensor:
    """Coefficients as a float32 tensor on the device of ``like``, which the kernels read."""
    return torch.tensor(values, dtype=torch.float32, device=like.device)
