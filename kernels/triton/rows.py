"""What the kernels of all kinds share: the two sums of a row over its terms, and its outputs.

    out = sum_k a_k T_k + P(sum_k b_k T_k),    next = c_in out

K is the length of the tuple of terms, which is unrolled; bit k of DIRECT and of PROJECTED says whether the row has an
a_k and a b_k, and what it has not is compiled away. Coefficients are read from a float32 table on the device: a_0 ..
a_K-1, b_0 .. b_K-1, c_in; of a residual p, q alone, for terms ybar, x, F with a = (1, 0, 0) and b = (0, -p, -q).
"""

# The compiler of Triton unrolls tl.static_range, which is not to be iterated in Python.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["narrow", "next_scale", "store", "sums", "widen"]


@triton.jit
def sums(
    terms,
    table,
    o_element,
    m_element,
    DIRECT: tl.constexpr,
    PROJECTED: tl.constexpr,
    RESIDUAL: tl.constexpr,
):
    """(sum_k a_k T_k, sum_k b_k T_k) at the elements with these offsets, float32; zero where the mask is False."""
    b_direct = tl.zeros(o_element.shape, tl.float32)
    b_projected = tl.zeros(o_element.shape, tl.float32)
    for k in tl.static_range(len(terms)):
        if ((DIRECT | PROJECTED) >> k) & 1:
            b_term = widen(tl.load(terms[k] + o_element, mask=m_element, other=0.0))
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
    """To float32, exactly. Of bfloat16 by its bits, since the interpreter has its own idea of subnormal ones."""
    if b_value.dtype == tl.bfloat16:
        bits = b_value.to(tl.uint16, bitcast=True).to(tl.uint32) << 16
        return bits.to(tl.float32, bitcast=True)
    return b_value.to(tl.float32)


@triton.jit
def narrow(b_value, dtype: tl.constexpr):
    """float32 to ``dtype``, to nearest even; every NaN of bfloat16 becomes the quiet 0x7FC0, as in torch.

    Rounded as integers, which the interpreter does as a GPU does: its own conversion to bfloat16 truncates.
    """
    if dtype == tl.bfloat16:
        bits = b_value.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return tl.where(b_value == b_value, rounded, 0x7FC0).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    return b_value.to(dtype)


@triton.jit
def store(p_out, p_next, o_element, m_element, b_value, c_in):
    """The value to out and, where there is one, c_in times the value to the network's next input."""
    tl.store(p_out + o_element, narrow(b_value, p_out.dtype.element_ty), mask=m_element)
    if p_next is not None:
        tl.store(p_next + o_element, narrow(b_value * c_in, p_next.dtype.element_ty), mask=m_element)


@triton.jit
def next_scale(table, p_next, COUNT: tl.constexpr):
    """c_in, which follows the coefficients of COUNT terms; not read where there is no next input."""
    if p_next is None:
        return 1.0
    return tl.load(table + 2 * COUNT)
