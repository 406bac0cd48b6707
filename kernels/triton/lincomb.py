"""Linear combinations: out = sum_k a_k T_k (+ field), or the sum sum_k b_k T_k that an operator then projects."""

# Triton's compiler turns numbers into constexpr, and takes slices as an index.
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from ..device_rows import Layout, Scales
from .launches import Call, launch, units
from .rows import next_scale, store, sums
from .scales import scaling

__all__ = ["lincomb"]


@triton.jit(do_not_specialize=["count"])
def lincomb_kernel(
    p_out,
    p_next,
    p_field,  # It is added as it is. It is P(sum_k b_k T_k) where the operator itself projected, else None.
    terms,
    table,
    scales,
    strides,
    sides,
    count,  # There are count * UNIT elements. UNIT = 4 tells the compiler that no vector of four is cut.
    UNIT: tl.constexpr,
    SCALED: tl.constexpr,
    DIRECT: tl.constexpr,
    PROJECTED: tl.constexpr,  # Where it is not zero DIRECT is, and out = sum_k b_k T_k.
    RESIDUAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    o_element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_element = o_element < count * UNIT
    b_direct, b_projected = sums(
        terms, table, scales, strides, sides, o_element, m_element, SCALED, UNIT, DIRECT, PROJECTED, RESIDUAL
    )
    b_out = b_direct + b_projected
    if p_field is not None:
        b_out += tl.load(p_field + o_element, mask=m_element, other=0.0).to(tl.float32)
    store(p_out, p_next, o_element, m_element, b_out, next_scale(table, p_next, len(terms)))


def lincomb(
    out: Tensor,
    following: Tensor | None,
    terms: Sequence[Tensor],
    table: Tensor,
    what: Layout,
    scales: Scales | None = None,
    field: Tensor | None = None,
) -> Call:
    """The launch that computes sum_k a_k T_k + field, or for a layout without any a_k sum_k b_k T_k."""
    how = launch("lincomb", out.numel())
    # Where coefficients are tensors no vector may reach across two planes.
    whole = out.numel() if scales is None else out.shape[2:].numel()
    unit = units(whole)[1]
    *tensors, code = scaling(out, terms, scales, unit)
    count = out.numel() // unit
    arguments = (out, following, field, terms, table, *tensors, count, unit, code, *what, how.block)
    return Call("lincomb", lincomb_kernel, triton.cdiv(out.numel(), how.block), how.warps, arguments)
