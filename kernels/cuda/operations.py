"""The operations of the CUDA backend: what its kernels take, and what is left to ``reference``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...operators import Operator
from .. import reference, triton
from ..reference import Ops
from ..triton.layout import coefficients, layout, table_of
from . import ops
from .fourier import fourier_row
from .separable import separable_row

__all__ = ["MAX_TERMS", "Row", "bind"]

MAX_TERMS = 8

Row = Callable[[Tensor, "Tensor | None", list[Tensor], Tensor, bool, int], None]
"""(out, next, terms, table, residual, stream): out = sum_k a_k T_k + P(sum_k b_k T_k), next = c_in out."""

_ROWS: dict[str, Callable[..., Row]] = {"fourier": fourier_row, "separable": separable_row}
_DTYPES = frozenset((torch.float32, torch.bfloat16, torch.float16))


def bind(operator: Operator) -> Ops:
    """The operations for one operator."""
    run = _ROWS[operator.kind](operator)

    def residual(
        x: Tensor, output: Tensor, ybar: Tensor, p: float, q: float, out: Tensor, table: Tensor | None = None
    ) -> None:
        terms = [ybar, x, output]
        if not _fits(x, terms, (out,)):
            return reference.residual(operator, x, output, ybar, p, q, out)
        if out.numel():
            table = table_of([p, q], out) if table is None else table
            run(out, None, terms, table, True, ops.stream(out.device))

    def update(
        row: Mapping[str, float],
        tensors: Mapping[str, Tensor],
        out: Tensor,
        input_out: Tensor | None,
        c_in: float,
        table: Tensor | None = None,
    ) -> None:
        what = layout(tuple(row))
        terms = [tensors[name] for name in what.names]
        if not _fits(out, terms, (out,) if input_out is None else (out, input_out)):
            return reference.update(operator, row, tensors, out, input_out, c_in)
        if not out.numel():
            return
        if table is None:
            table = table_of(coefficients(row, what, c_in), out)
        stream = ops.stream(out.device)
        if what.projected:
            run(out, input_out, terms, table, False, stream)
        else:
            ops.finish(out, input_out, terms, table, False, None, stream)

    # noise is Triton's, whatever the operator; without triton it is torch's, the same within 1e-6
    normal = triton.bind(operator).normal if triton.reason(torch.device("cuda")) is None else reference.normal
    return Ops(reference.denoised, residual, update, normal)


def _fits(state: Tensor, terms: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    """Whether the kernels take these tensors. They have no derivative: gradients would silently be lost."""
    tensors = (state, *terms, *outputs)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        raise RuntimeError(
            "cuda backend: its kernels cannot be differentiated, but an input requires grad; pass x.detach() or use "
            "backend='reference'"
        )
    return (
        state.dtype == torch.float32
        and _DTYPES.issuperset([t.dtype for t in tensors])
        and all(t.is_contiguous() for t in outputs)
        and 0 < len(terms) <= MAX_TERMS
    )
