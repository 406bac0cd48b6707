"""Coefficients that are tensors: a number for every image or for every element, read through the strides of its tensor.

A launch with such coefficients has for each of its terms a pointer, four strides (of image, channel, row and column)
and two bits of SCALED, which say how the number of an element is found:

    0    the term has no tensor                    2    planes are contiguous, and rows need not be told apart
    1    a number for every image                  3    any strides
"""

# Triton's compiler turns numbers into constexpr.
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from ..device_rows import Scales
from .launches import VECTOR

__all__ = ["NOTHING", "Scaling", "factor", "scaling"]

IMAGE, PLANES, STRIDED = 1, 2, 3


class Scaling(NamedTuple):
    """The arguments of a kernel for the tensors among the coefficients of a row; three times None and 0 without any.

    Attributes:
        scales: A pointer for each term, which is that of the term itself where it has no tensor.
        strides: Four numbers for each term, in units of UNIT elements where planes are contiguous.
        sides: The channels of an image, the elements of a plane in units of UNIT, and the columns of a row.
        code: SCALED.
    """

    scales: tuple[Tensor, ...] | None
    strides: tuple[int, ...] | None
    sides: tuple[int, int, int] | None
    code: int


NOTHING = Scaling(None, None, None, 0)


@triton.jit
def factor(scales, strides, sides, o_element, m_element, k: tl.constexpr, SCALED: tl.constexpr, UNIT: tl.constexpr):
    """The coefficients of term k at the elements with these offsets, which must have a tensor."""
    KIND: tl.constexpr = (SCALED >> (2 * k)) & 3
    i_plane = o_element // (sides[1] * UNIT)
    i_image = i_plane // sides[0]
    if KIND == 1:
        o_scale = i_image * strides[4 * k]
    elif KIND == 2:
        o_scale = i_image * (strides[4 * k] * UNIT) + i_plane % sides[0] * (strides[4 * k + 1] * UNIT)
        o_scale += o_element % (sides[1] * UNIT)
    else:
        o_pixel = o_element % (sides[1] * UNIT)
        o_scale = i_image * strides[4 * k] + i_plane % sides[0] * strides[4 * k + 1]
        o_scale += o_pixel // sides[2] * strides[4 * k + 2] + o_pixel % sides[2] * strides[4 * k + 3]
    return tl.load(scales[k] + o_scale, mask=m_element, other=0.0)


def scaling(out: Tensor, terms: Sequence[Tensor], scales: Scales | None, unit: int) -> Scaling:
    """The arguments for a launch whose planes are counted in ``unit`` elements.

    Raises:
        ValueError: A tensor fits neither the images nor their elements.
    """
    if scales is None:
        return NOTHING
    pointers, strides, code = [*terms], [0] * (4 * len(terms)), 0
    for tensor, place in zip(*scales, strict=True):
        kind, own = laid_out(tensor, out, unit)
        pointers[place], strides[4 * place : 4 * place + 4] = tensor, own
        code |= kind << (2 * place)
    sides = (out.shape[1], out.shape[2:].numel() // unit, out.shape[-1])
    return Scaling(tuple(pointers), tuple(strides), sides, code)


def laid_out(tensor: Tensor, out: Tensor, unit: int) -> tuple[int, list[int]]:
    """The kind of a tensor of coefficients and its four strides."""
    missing = 0 if tensor.ndim == 1 else out.ndim - tensor.ndim
    sizes = (out.shape[0],) if tensor.ndim == 1 else out.shape[missing:]
    if missing not in (0, 1) or any(n not in (1, want) for n, want in zip(tensor.shape, sizes, strict=True)):
        raise ValueError(
            f"scales: must be (B,), an image or a batch of images to fit {tuple(out.shape)}, got {tuple(tensor.shape)}"
        )
    own = [0 if n == 1 else step for n, step in zip(tensor.shape, tensor.stride(), strict=True)]
    if tensor.ndim == 1:
        return IMAGE, [*own, 0, 0, 0]
    image, channel, *pixel = [0] * missing + own
    row, column = pixel if len(pixel) == 2 else (0, *pixel)
    *rows, width = out.shape[2:]
    flat = (width == 1 or column == 1) and all(n == 1 or row == width for n in rows)
    aligned = unit == 1 or (image % VECTOR == 0 and channel % VECTOR == 0)
    if flat and aligned:
        return PLANES, [image // unit, channel // unit, 0, 0]
    return STRIDED, [image, channel, row, column]
