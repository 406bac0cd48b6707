"""Rows of channel operators: P x is v (v . x) at each pixel, where v is a unit vector over the channels.

A program takes SPAN pixels of one image. Up to eight channels are held in registers, those of a pixel in one thread.
More channels are read twice, the second time from a cache.
"""

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

__all__ = ["channel"]

HELD_CHANNELS = 8
"""The most channels that are held in registers."""


@triton.jit(do_not_specialize=["count"])
def channel_kernel(
    p_out,
    p_next,
    p_direction,
    terms,
    table,
    scales,
    strides,
    sides,
    count,  # A plane has count * UNIT elements.
    UNIT: tl.constexpr,
    CHANNELS: tl.constexpr,
    HELD: tl.constexpr,  # It is CHANNELS padded to a power of two, or 0 where channels are read twice.
    SCALED: tl.constexpr,
    DIRECT: tl.constexpr,
    PROJECTED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    SPAN: tl.constexpr,
):
    plane = count * UNIT
    pieces = tl.cdiv(plane, SPAN)
    i_image = tl.program_id(0) // pieces
    i_pixel = tl.program_id(0) % pieces * SPAN + tl.arange(0, SPAN)
    m_pixel = i_pixel < plane
    o_pixel = i_image * (CHANNELS * plane) + i_pixel
    c_in = next_scale(table, p_next, len(terms))
    if HELD:
        i_channel = tl.arange(0, HELD)[:, None]
        o_element = o_pixel[None, :] + i_channel * plane
        m_element = m_pixel[None, :] & (i_channel < CHANNELS)
        b_direction = tl.load(p_direction + i_channel, mask=i_channel < CHANNELS, other=0.0)
        b_direct, b_projected = sums(
            terms, table, scales, strides, sides, o_element, m_element, SCALED, UNIT, DIRECT, PROJECTED, RESIDUAL
        )
        b_inner = tl.sum(b_direction * b_projected, axis=0)
        store(p_out, p_next, o_element, m_element, b_direct + b_direction * b_inner[None, :], c_in)
    else:
        b_inner = tl.zeros((SPAN,), tl.float32)
        for i in range(CHANNELS):
            _, b_projected = sums(
                terms, table, scales, strides, sides, o_pixel + i * plane, m_pixel, SCALED, UNIT, 0, PROJECTED, RESIDUAL
            )
            b_inner += tl.load(p_direction + i) * b_projected
        for i in range(CHANNELS):
            b_direct, _ = sums(
                terms, table, scales, strides, sides, o_pixel + i * plane, m_pixel, SCALED, UNIT, DIRECT, 0, RESIDUAL
            )
            store(p_out, p_next, o_pixel + i * plane, m_pixel, b_direct + tl.load(p_direction + i) * b_inner, c_in)


def channel(
    out: Tensor,
    following: Tensor | None,
    terms: Sequence[Tensor],
    table: Tensor,
    what: Layout,
    scales: Scales | None,
    direction: Tensor,
) -> Call:
    """The launch for the unit vector ``direction``, (C,) float32."""
    channels, plane = out.shape[1], out.shape[2:].numel()
    how = launch("channel", out.numel())
    held = triton.next_power_of_2(channels) if channels <= HELD_CHANNELS else 0
    count, unit = units(plane)
    *tensors, code = scaling(out, terms, scales, unit)
    arguments = (
        *(out, following, direction, terms, table, *tensors),
        *(count, unit, channels, held, code),
        *what,
        how.block,
    )
    return Call("channel", channel_kernel, out.shape[0] * triton.cdiv(plane, how.block), how.warps, arguments)
