"""Rows with coefficients over the modes by the operator's own ``down`` and ``lift``, between kernels of a backend.

They serve the kinds of operators whose coordinates no kernel knows, such as dense matrices, whose products are torch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor

from ..operators import Operator
from .device_rows import RESIDUAL, Layout, ModalKernel, Scales, WeightedKernel, scales_of
from .reference import scaled
from .row import Row, Weighted

__all__ = ["Combine", "row_by_transforms", "weighted_by_transforms"]


class Combine(Protocol):
    """Computes sum_k a_k T_k + field, or for a layout without any a_k sum_k b_k T_k."""

    def __call__(
        self,
        out: Tensor,
        following: Tensor | None,
        terms: Sequence[Tensor],
        table: Tensor,
        what: Layout,
        scales: Scales | None,
        field: Tensor | None = None,
        /,
    ) -> None: ...


def row_by_transforms(operator: Operator, combine: Combine) -> ModalKernel:
    """The kernel of rows out = sum_k a_k T_k + V (V^T sum_k b_k T_k + sum_j f_j V^T T_j)."""

    def run(row: Row, out: Tensor, after: Tensor | None, terms: Sequence[Tensor], table: Tensor) -> None:
        count, what, scales = len(row.direct), Layout(*row.layout), scales_of(row)
        plain, over_modes = terms[:count], terms[count:]
        like = torch.empty_like(out, dtype=torch.float32)
        parts = [f * operator.down(scaled(t, c, like)) for t, (f, c) in zip(over_modes, row.modes, strict=True)]
        if row.projected:
            combine(like, None, plain, table, what._replace(direct=0), scales)
            parts.append(operator.down(like))
        field = operator.lift(reduce(torch.add, parts)).contiguous()
        if plain:
            combine(out, after, plain, table, what._replace(projected=0), scales, field)
        else:
            out.copy_(field)
            if after is not None:
                after.copy_(field * table[-1])

    return run


def weighted_by_transforms(operator: Operator, combine: Combine) -> WeightedKernel:
    """The kernel of residuals V weight (encode(y) - V^T (p x + q F))."""

    def run(out: Tensor, terms: Sequence[Tensor], table: Tensor, weighted: Weighted) -> None:
        weight, coordinates, _ = weighted
        minus = torch.empty_like(terms[0], dtype=torch.float32)
        # The first of the three terms of a residual is not projected, so that the layout leaves it unread.
        combine(minus, None, (terms[0], *terms), table, RESIDUAL._replace(direct=0), None)
        out.copy_(operator.lift((coordinates + operator.down(minus)).mul_(weight)))

    return run
