"""Rows of block operators: P x is the mean of the tile that an element lies in.

Tiles have ROWS x FACTOR elements, or 1 x FACTOR in signals.
A band is the ROWS rows of pixels that a row of tiles covers, and the bands of all planes follow each other in memory. A
program takes SPAN columns of the bands laid end to end. These are whole tiles, each padded to PAD columns, the next
power of two. Tiles of up to eight rows are held in registers, all elements of a tile in as few threads as its width
allows, so that every tensor is read once. The rows of larger tiles are read twice, the second time from a cache.
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

__all__ = ["LARGEST", "block"]

HELD_ROWS = 8
"""The most rows of a tile that is held in registers."""

LARGEST = 1024
"""The most columns of a tile. Operators with wider ones, which are rare, are applied by their own ``project``."""


@triton.jit
def tile_means(b_columns, SIZE: tl.constexpr, SPAN: tl.constexpr, PAD: tl.constexpr):
    """The mean of the tile at each of its columns, (SPAN,), from the sums of these columns, (SPAN,)."""
    b_mean = tl.sum(tl.reshape(b_columns, (SPAN // PAD, PAD)), axis=1) * (1.0 / SIZE)
    return tl.reshape(tl.broadcast_to(b_mean[:, None], (SPAN // PAD, PAD)), (SPAN,))


@triton.jit(do_not_specialize=["bands", "count"])
def block_kernel(
    p_out,
    p_next,
    terms,
    table,
    scales,
    strides,
    sides,
    bands,
    count,  # A row has count * UNIT columns.
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    HELD: tl.constexpr,  # It is ROWS padded to a power of two, or 0 where rows are read twice.
    FACTOR: tl.constexpr,
    PAD: tl.constexpr,
    SCALED: tl.constexpr,
    DIRECT: tl.constexpr,
    PROJECTED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    SPAN: tl.constexpr,
):
    width = count * UNIT
    i_span = tl.program_id(0) * SPAN + tl.arange(0, SPAN)
    if FACTOR == PAD:
        i_band = i_span // width
        i_column = i_span % width
        m_span = i_band < bands
    else:
        tiles = width // FACTOR
        i_tile = i_span // PAD
        i_band = i_tile // tiles
        i_column = i_tile % tiles * FACTOR + i_span % PAD
        m_span = (i_band < bands) & (i_span % PAD < FACTOR)
    o_span = i_band * (ROWS * width) + i_column
    c_in = next_scale(table, p_next, len(terms))
    if HELD:
        i_row = tl.arange(0, HELD)[:, None]
        o_element = o_span[None, :] + i_row * width
        m_element = m_span[None, :] & (i_row < ROWS)
        b_direct, b_projected = sums(
            terms, table, scales, strides, sides, o_element, m_element, SCALED, UNIT, DIRECT, PROJECTED, RESIDUAL
        )
        b_mean = tile_means(tl.sum(b_projected, axis=0), ROWS * FACTOR, SPAN, PAD)
        store(p_out, p_next, o_element, m_element, b_direct + b_mean[None, :], c_in)
    else:
        b_columns = tl.zeros((SPAN,), tl.float32)
        for i in range(ROWS):
            _, b_projected = sums(
                terms, table, scales, strides, sides, o_span + i * width, m_span, SCALED, UNIT, 0, PROJECTED, RESIDUAL
            )
            b_columns += b_projected
        b_mean = tile_means(b_columns, ROWS * FACTOR, SPAN, PAD)
        for i in range(ROWS):
            b_direct, _ = sums(
                terms, table, scales, strides, sides, o_span + i * width, m_span, SCALED, UNIT, DIRECT, 0, RESIDUAL
            )
            store(p_out, p_next, o_span + i * width, m_span, b_direct + b_mean, c_in)


def block(
    out: Tensor,
    following: Tensor | None,
    terms: Sequence[Tensor],
    table: Tensor,
    what: Layout,
    scales: Scales | None,
    rows: int,
    factor: int,
) -> Call:
    """The launch for tiles of ``rows`` x ``factor``, where ``factor`` is at most LARGEST."""
    width = out.shape[-1]
    bands, pad = out.numel() // (rows * width), triton.next_power_of_2(factor)
    how = launch("block", out.numel())
    span = max(how.block, pad)
    held = triton.next_power_of_2(rows) if rows <= HELD_ROWS else 0
    count, unit = units(width)
    *tensors, code = scaling(out, terms, scales, unit)
    arguments = (
        *(out, following, terms, table, *tensors),
        *(bands, count, unit, rows, held, factor, pad, code),
        *what,
        span,
    )
    return Call("block", block_kernel, triton.cdiv(bands * (width // factor) * pad, span), how.warps, arguments)
