"""The operations of the CUDA backend: what its kernels take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from ...operators import Operator
from .. import reference, triton
from ..row import Ops, Row, Weighted, outside, refuse_gradients
from ..triton.layout import table_of
from . import ops
from .fourier import fourier_row
from .separable import separable_row

__all__ = ["MAX_TERMS", "RowKernel", "bind", "takes"]

MAX_TERMS = 8

RowKernel = Callable[[Tensor, "Tensor | None", list[Tensor], Tensor, bool, int], None]
"""(out, next, terms, table, residual, stream): out = sum_k a_k T_k + P(sum_k b_k T_k), next = c_in out."""

_KERNELS: dict[str, Callable[..., RowKernel]] = {"fourier": fourier_row, "separable": separable_row}


def takes(operator: Operator, row: Row, dtypes: Collection[torch.dtype], elements: int) -> str | None:
    """Why the kernels do not run a row, or None."""
    return outside(row, dtypes, MAX_TERMS, tensors=False)


def bind(operator: Operator) -> Ops:
    """The operations for one operator."""
    run = _KERNELS[operator.kind](operator)

    def residual(
        tensors: Sequence[Tensor],
        p: float,
        q: float,
        out: Tensor,
        weighted: Weighted | None = None,
        table: Tensor | None = None,
    ) -> None:
        refuse_gradients("cuda", (*tensors, out))
        if out.numel():
            table = table_of([p, q], out) if table is None else table
            run(out, None, [*tensors], table, True, ops.stream(out.device))

    def update(
        row: Row, tensors: list[Tensor], out: Tensor, after: Tensor | None, c_in: float, table: Tensor | None = None
    ) -> None:
        refuse_gradients("cuda", (*tensors, out))
        if not out.numel():
            return
        table = table_of(row.values(c_in), out) if table is None else table
        stream = ops.stream(out.device)
        if row.projected:
            run(out, after, tensors, table, False, stream)
        else:
            ops.finish(out, after, tensors, table, False, None, stream)

    # noise is Triton's, whatever the operator; without triton it is torch's, the same within 1e-6
    normal = triton.bind(operator).normal if triton.reason(torch.device("cuda")) is None else reference.normal
    return Ops(reference.denoised, residual, update, normal)
