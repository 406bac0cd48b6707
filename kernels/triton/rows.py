"""The parts that all kernels share: the two sums of a row over its terms, and the writing of its outputs.

    out = sum_k a_k T_k + P(sum_k b_k T_k),    next = c_in out

The terms are a tuple of K pointers, over which the compiler unrolls the sums. Bit k of DIRECT and of PROJECTED says
whether the row has an a_k and a b_k; coefficients that it does not have cost nothing. The others are read from a
float32 table on the device, which holds a_0 .. a_K-1, b_0 .. b_K-1, c_in. Those that are tensors multiply the term
before both (``scales.py``). The table of a residual holds p and q alone, since its terms ybar, x and F have a =
(1, 0, 0) and b = (0, -p, -q).
"""

# Triton's compiler unrolls tl.static_range, which cannot be iterated in Python.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from .scales import factor

__all__ = ["narrow", "next_scale", "store", "sums", "widen"]


@triton.jit
def sums(
    terms,
    table,
    scales,
    strides,
    sides,
    o_element,
    m_element,
    SCALED: tl.constexpr,
    UNIT: tl.constexpr,
    DIRECT: tl.constexpr,
    PROJECTED: tl.constexpr,
    RESIDUAL: tl.constexpr,
):
    """(sum_k a_k T_k, sum_k b_k T_k) at the elements with these offsets, in float32; zero where the mask is False."""
    b_direct = tl.zeros(o_element.shape, tl.float32)
    b_projected = tl.zeros(o_element.shape, tl.float32)
    for k in tl.static_range(len(terms)):
        if ((DIRECT | PROJECTED) >> k) & 1:
            b_term = widen(tl.load(terms[k] + o_element, mask=m_element, other=0.0))
            if (SCALED >> (2 * k)) & 3:
                b_term *= factor(scales, strides, sides, o_element, m_element, k, SCALED, UNIT)
            if (DIRECT >> k) & 1:
                if RESIDUAL:
                    b_direct += b_term
                else:
                    b_direct += tl.load(table + k) * b_term
            if (PROJECTED >> k) & 1:
                if RESIDUAL:
                    b_projected -= tl.load(table + k - 1) * b_term
                else:
                    b_projected += tl.load(table + len(terms) + k) * b_term
    return b_direct, b_projected


@triton.jit
def widen(b_value):
    """Convert to float32, exactly. Bfloat16 goes by its bits, since the interpreter converts subnormal ones wrongly."""
    if b_value.dtype == tl.bfloat16:
        bits = b_value.to(tl.uint16, bitcast=True).to(tl.uint32) << 16
        return bits.to(tl.float32, bitcast=True)
    return b_value.to(tl.float32)


@triton.jit
def narrow(b_value, dtype: tl.constexpr):
    """Convert float32 to ``dtype``, rounding to nearest even. A NaN becomes the quiet bfloat16 0x7FC0, as in torch.

    Bfloat16 is rounded by integer arithmetic, since the conversion of Triton's interpreter truncates.
    """
    if dtype == tl.bfloat16:
        bits = b_value.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return tl.where(b_value == b_value, rounded, 0x7FC0).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    return b_value.to(dtype)


@triton.jit
def store(p_out, p_next, o_element, m_element, b_value, c_in):
    """Write the value to out and, where there is a next input, c_in times the value to that."""
    tl.store(p_out + o_element, narrow(b_value, p_out.dtype.element_ty), mask=m_element)
    if p_next is not None:
        tl.store(p_next + o_element, narrow(b_value * c_in, p_next.dtype.element_ty), mask=m_element)


@triton.jit
def next_scale(table, p_next, COUNT: tl.constexpr):
    """The scale c_in, which the table holds behind the coefficients of COUNT terms, or 1 without a next input."""
    if p_next is None:
        return 1.0
    return tl.load(table + 2 * COUNT)
