"""Rows of masks: P x = m x, where m is 0 or 1 for every element, so that out = sum_k a_k T_k + m sum_k b_k T_k."""

# Triton's compiler turns numbers into constexpr, and takes slices as an index.
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from ..device_rows import Layout, Scales
from .launches import VECTOR, Call, launch, units
from .rows import next_scale, store, sums
from .scales import scaling

__all__ = ["mask"]


@triton.jit(do_not_specialize=["count", "plane_count", "mask_stride"])
def mask_kernel(
    p_out,
    p_next,
    p_mask,  # The mask has one byte for every element.
    terms,
    table,
    scales,
    strides,
    sides,
    count,  # An image has count * UNIT elements.
    plane_count,  # A plane has plane_count * UNIT elements.
    mask_stride,  # The masks of two images are mask_stride * UNIT bytes apart; 0 where all share one.
    CHANNELS: tl.constexpr,  # Whether each channel has a mask of its own.
    UNIT: tl.constexpr,
    SCALED: tl.constexpr,
    DIRECT: tl.constexpr,
    PROJECTED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    size = count * UNIT
    pieces = tl.cdiv(size, BLOCK)
    i_image = tl.program_id(0) // pieces
    o_pixel = tl.program_id(0) % pieces * BLOCK + tl.arange(0, BLOCK)
    m_pixel = o_pixel < size
    o_element = i_image * size + o_pixel
    b_direct, b_projected = sums(
        terms, table, scales, strides, sides, o_element, m_pixel, SCALED, UNIT, DIRECT, PROJECTED, RESIDUAL
    )
    o_mask = o_pixel if CHANNELS else o_pixel % (plane_count * UNIT)
    b_mask = tl.load(p_mask + i_image * (mask_stride * UNIT) + o_mask, mask=m_pixel, other=0)
    b_out = b_direct + tl.where(b_mask != 0, b_projected, 0.0)
    store(p_out, p_next, o_element, m_pixel, b_out, next_scale(table, p_next, len(terms)))


def mask(
    out: Tensor,
    following: Tensor | None,
    terms: Sequence[Tensor],
    table: Tensor,
    what: Layout,
    scales: Scales | None,
    kept: Tensor,
) -> Call:
    """The launch for the mask ``kept``, contiguous uint8 ([B,] 1 or C, ...), which with a B differs between images."""
    image = out.shape[1:]
    size, plane = image.numel(), image[1:].numel()
    channels = kept.shape[-len(image)] != 1
    own = kept.ndim > len(image) and out.shape[0] > 1
    count, unit = units(size) if plane % VECTOR == 0 else (size, 1)
    stride = (size if channels else plane) // unit if own else 0
    how = launch("mask", out.numel())
    *tensors, code = scaling(out, terms, scales, unit)
    arguments = (
        *(out, following, kept, terms, table, *tensors),
        *(count, plane // unit, stride, channels, unit, code),
        *what,
        how.block,
    )
    return Call("mask", mask_kernel, out.shape[0] * triton.cdiv(size, how.block), how.warps, arguments)
