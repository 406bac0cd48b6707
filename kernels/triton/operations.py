"""The operations of the Triton backend: which kernel takes what, and what is left to ``reference``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...operators import Operator
from .. import reference
from ..reference import Ops
from . import noise
from .block import LARGEST, block
from .channel import channel
from .layout import RESIDUAL, Layout, coefficients, layout, table_of
from .lincomb import lincomb
from .mask import mask

__all__ = ["bind", "normal"]

MAX_TERMS = 8
MAX_ELEMENTS = 2**31 - 2**20
"""Of a batch: offsets are int32, those of the masked elements of the last programs included."""

_DTYPES = frozenset((torch.float32, torch.bfloat16, torch.float16))

Row = Callable[[Tensor, "Tensor | None", Sequence[Tensor], Tensor, Layout], None]
"""(out, next, terms, table, layout): out = sum_k a_k T_k + P(sum_k b_k T_k), next = c_in out."""


def bind(operator: Operator) -> Ops:
    """The operations for one operator."""
    run = _ROWS.get(operator.kind, _any_row)(operator)

    def residual(
        x: Tensor, output: Tensor, ybar: Tensor, p: float, q: float, out: Tensor, table: Tensor | None = None
    ) -> None:
        terms = (ybar, x, output)
        if not _fits(x, terms, (out,)):
            return reference.residual(operator, x, output, ybar, p, q, out)
        if out.numel():
            run(out, None, _contiguous(terms), table_of([p, q], out) if table is None else table, RESIDUAL)

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
        if what.projected:
            run(out, input_out, _contiguous(terms), table, what)
        else:
            lincomb(out, input_out, _contiguous(terms), table, what).run()

    return Ops(reference.denoised, residual, update, normal)


def normal(out: Tensor, seeds: Tensor, samples: Tensor, draws: Tensor, step: int) -> Tensor:
    """Unit noise into ``out``, the stream of ``reference.normal``: equal words, normals within 1e-6."""
    if out.dtype != torch.float32 or not out.is_contiguous() or out.numel() > MAX_ELEMENTS:
        return reference.normal(out, seeds, samples, draws, step)
    if out.numel():
        noise.normal(out, seeds, samples, draws, step).run()
    return out


def _fits(state: Tensor, terms: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    """Whether the kernels take these tensors. They have no derivative: gradients would silently be lost."""
    tensors = (state, *terms, *outputs)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        raise RuntimeError(
            "triton backend: its kernels cannot be differentiated, but an input requires grad; pass x.detach() or use "
            "backend='reference'"
        )
    return (
        state.dtype == torch.float32
        and _DTYPES.issuperset([t.dtype for t in tensors])
        and all(t.shape == state.shape for t in tensors)
        and all(t.is_contiguous() for t in outputs)
        and 0 < len(terms) <= MAX_TERMS
        and state.numel() <= MAX_ELEMENTS
    )


def _contiguous(terms: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Terms in memory as the state is: those of a channels_last network are copied."""
    return tuple(term.contiguous() for term in terms)


# ---------------------------------------------------------------------------------------- rows of the kinds
def _mask_row(operator: Operator) -> Row:
    def run(out: Tensor, following: Tensor | None, terms: Sequence[Tensor], table: Tensor, what: Layout) -> None:
        # one byte an element; ``constant`` keeps the dtype of what is not floating
        field = operator.constant("triton range", lambda: (operator.singular_values > 0).to(torch.uint8), out)
        mask(out, following, terms, table, what, field).run()

    return run


def _block_row(operator: Operator) -> Row:
    factor = operator.factor
    if factor > LARGEST:
        return _any_row(operator)
    rows = factor if len(operator.shape) == 3 else 1
    return lambda *row: block(*row, rows, factor).run()


def _channel_row(operator: Operator) -> Row:
    def run(out: Tensor, following: Tensor | None, terms: Sequence[Tensor], table: Tensor, what: Layout) -> None:
        direction = operator.constant("triton direction", lambda: operator.weights / operator.gain, out)
        channel(out, following, terms, table, what, direction).run()

    return run


def _any_row(operator: Operator) -> Row:
    """P by the operator's own ``project``, the sums before and after it fused."""
    inner: Tensor | None = None

    def run(out: Tensor, following: Tensor | None, terms: Sequence[Tensor], table: Tensor, what: Layout) -> None:
        nonlocal inner
        if inner is None or inner.shape != out.shape or inner.device != out.device:
            inner = torch.empty_like(out, dtype=torch.float32)
        lincomb(inner, None, terms, table, what._replace(direct=0)).run()
        field = operator.project(inner).contiguous()
        lincomb(out, following, terms, table, what._replace(projected=0), field).run()

    return run


_ROWS: dict[str, Callable[..., Row]] = {"mask": _mask_row, "block": _block_row, "channel": _channel_row}
