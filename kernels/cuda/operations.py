"""The operations of the CUDA backend, and the rows that its kernels take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from ...operators import Operator
from .. import reference, triton
from ..device_rows import Layout, RowKernels, Scales, bind_rows
from ..own_transforms import row_by_transforms, weighted_by_transforms
from ..row import Ops, Row, outside, refuse_gradients
from . import ops
from .fourier import Fourier
from .separable import separable_row

__all__ = ["MAX_TERMS", "ProjectedRow", "bind", "takes"]

MAX_TERMS = 8
"""The most terms of a row."""

ProjectedRow = Callable[[Tensor, "Tensor | None", Sequence[Tensor], Tensor, bool, int], None]
"""Called as (out, next, terms, table, residual, stream), it runs a row with projected terms on a CUDA stream."""

_KERNELS: dict[str, Callable[..., ProjectedRow]] = {"fourier": Fourier, "separable": separable_row}


def takes(operator: Operator, row: Row, dtypes: Collection[torch.dtype], elements: int) -> str | None:
    """Why the kernels do not run a row, or None where they do."""
    return outside(row, dtypes, MAX_TERMS, tensors=False)


def bind(operator: Operator) -> Ops:
    """The operations for one operator."""
    run = _KERNELS[operator.kind](operator)

    def project(
        out: Tensor,
        after: Tensor | None,
        terms: Sequence[Tensor],
        table: Tensor,
        what: Layout,
        scales: Scales | None,
    ) -> None:
        run(out, after, terms, table, what.residual, ops.stream(out.device))

    # Triton makes the noise, whatever the operator. Without triton torch makes it, equal to within 1e-6.
    normal = triton.bind(operator).normal if triton.reason(torch.device("cuda")) is None else reference.normal
    by_transforms = row_by_transforms(operator, _combine), weighted_by_transforms(operator, _combine)
    return bind_rows(RowKernels(_terms, project, _combine, *by_transforms), normal)


def _combine(
    out: Tensor,
    after: Tensor | None,
    terms: Sequence[Tensor],
    table: Tensor,
    what: Layout,
    scales: Scales | None,
    field: Tensor | None = None,
) -> None:
    if what.direct:
        ops.finish(out, after, terms, table, what.residual, field, ops.stream(out.device))
    else:
        ops.combine(out, terms, table, what.residual, ops.stream(out.device))


def _terms(tensors: Sequence[Tensor], out: Tensor, after: Tensor | None) -> Sequence[Tensor]:
    refuse_gradients("cuda", (*tensors, out))
    return tensors
