"""Plain PyTorch reference of every operation of the sampling loop, on any device and in any floating dtype.

Notation: x the state, F the network's output, x0hat = p x + q F, ybar = H+ y, P the projector of the operator,
r = ybar - P x0hat the residual, h = (dF/dx)^T r, z unit noise. Registers of earlier steps have a digit: x1, F1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..operators.sums import sums

__all__ = [
    "RICH_ROWS",
    "Ops",
    "bind",
    "combine",
    "denoised",
    "dot",
    "normal",
    "per_image",
    "residual",
    "seed_words",
    "update",
]


RICH_ROWS = True
"""Whether ``residual`` takes a weight, and ``update`` tensors among the coefficients and fields."""


class Projector(Protocol):
    """What the kernels use of an operator."""

    def project(self, x: Tensor) -> Tensor: ...

    def down(self, x: Tensor) -> Tensor: ...

    def lift(self, c: Tensor) -> Tensor: ...


class Ops(NamedTuple):
    """The operations of a loop, bound to an operator. Every backend's ``bind(operator)`` returns these four."""

    denoised: Callable[..., Tensor]
    residual: Callable[..., None]
    update: Callable[..., None]
    normal: Callable[..., Tensor]


def bind(operator: Projector) -> Ops:
    """The reference operations for one operator."""
    return Ops(denoised, partial(residual, operator), partial(update, operator), normal)


def denoised(x: Tensor, output: Tensor, p: float, q: float) -> Tensor:
    """x0hat = p x + q F, in the dtype of x."""
    return (p * x).add_(output, alpha=q)


def residual(
    operator: Projector,
    x: Tensor,
    output: Tensor,
    ybar: Tensor,
    p: float,
    q: float,
    out: Tensor,
    weight: Tensor | None = None,
    coordinates: Tensor | None = None,
) -> None:
    """out = ybar - P (p x + q F), or with a weight V w (coordinates - V^T (p x + q F)), in the dtype of ``out``.

    Args:
        weight: over the modes of the operator.
        coordinates: encode(y), needed with a weight: where singular values are small ybar is large, and the digits
            of the other modes would be lost in it.
    """
    x0hat = denoised(x, output, p, q)
    if weight is None:
        out.copy_(ybar - operator.project(x0hat))
    else:
        assert coordinates is not None
        out.copy_(operator.lift((coordinates - operator.down(x0hat)).mul_(weight)))


def update(
    operator: Projector,
    row: Mapping[str, float | Tensor],
    tensors: Mapping[str, Tensor],
    out: Tensor,
    input_out: Tensor | None,
    c_in: float,
    fields: Mapping[str, Tensor] | None = None,
) -> None:
    """One row of a plan: ``out`` = sum of coefficient times term, and the network's next input = c_in out.

    A backend without ``RICH_ROWS`` leaves tensors among the coefficients, and fields, to this function.

    Args:
        operator: applied to the terms with a leading P, and in the fields.
        row: coefficient of each term of ``ccfast.plan`` that the step uses: a float, (B,), or one for every element,
            (C, H, W) or (B, C, H, W) with any dimension 1. A term with a leading P is multiplied, then projected.
        tensors: the registers that the row names; any floating dtype, accumulated in that of out.
        out: the new state; may be none of the tensors read.
        input_out: where the scaled, cast input of the next evaluation goes, None where the state itself serves.
        c_in: scale of that input.
        fields: for some registers T a factor f over the modes of the operator: adds V f V^T T.
    """
    out.zero_()
    projected = None
    for term, coefficient in row.items():
        if term.startswith("P"):
            if projected is None:
                projected = torch.zeros_like(out)
            add_scaled(projected, tensors[term[1:]], coefficient)
        else:
            add_scaled(out, tensors[term], coefficient)
    if fields:
        modes = [f * operator.down(tensors[name].to(out.dtype)) for name, f in fields.items()]
        if projected is not None:
            modes.append(operator.down(projected))
        out.add_(operator.lift(reduce(torch.add, modes)))
    elif projected is not None:
        out.add_(operator.project(projected))
    if input_out is not None:
        input_out.copy_(out if c_in == 1.0 else out * c_in)


def add_scaled(out: Tensor, term: Tensor, coefficient: float | Tensor) -> None:
    """out += coefficient term, the coefficient a float, one of every image or one of every element."""
    if isinstance(coefficient, Tensor):
        out.addcmul_(term.to(out.dtype), per_image(coefficient, out).to(out.dtype))
    else:
        out.add_(term, alpha=coefficient)


def combine(vector: Mapping[str, float], tensors: Mapping[str, Tensor]) -> Tensor:
    """Sum of coefficient times register, at least in float32."""
    total = None
    for term, coefficient in vector.items():
        tensor = tensors[term]
        tensor = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        total = tensor * coefficient if total is None else total.add_(tensor, alpha=coefficient)
    assert total is not None
    return total


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of every image, (B,) float64."""
    return sums(a * b, torch.float64)


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """(B,) as (B, 1, ...), to be broadcast over images; what has more dimensions is returned as it is."""
    return values.reshape(-1, *[1] * (like.ndim - 1)) if values.ndim == 1 else values


# ---------------------------------------------------------------------------------------------------------- noise
def philox(counter: list[Tensor], key: Tensor) -> list[Tensor]:
    """Philox 4x32-10 (Salmon et al., SC 2011): four words of 32 bits from a counter of four and a key of two.

    Words are int64 tensors with values below 2^32, any mutually broadcastable shapes; ``key`` is one int64 holding
    both words, the low one first.
    """
    mask = 0xFFFFFFFF
    c0, c1, c2, c3 = counter
    k0, k1 = key & mask, (key >> 32) & mask
    for _ in range(10):
        product0, product2 = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # int64 wraps: the 64 bits are those of the product
        c0, c2 = ((product2 >> 32) & mask) ^ c1 ^ k0, ((product0 >> 32) & mask) ^ c3 ^ k1
        c1, c3 = product2 & mask, product0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return [c0, c1, c2, c3]


def normal(out: Tensor, seeds: Tensor, samples: Tensor, draws: Tensor, step: int) -> Tensor:
    """Fill ``out`` (B, ...) with unit Gaussian noise that depends on nothing but the five arguments of each element.

    Element i of image b is output i % 4 of Philox 4x32-10 with key seeds[b] and counter (i // 4, step, samples[b],
    draws[b]), turned into a normal by Box-Muller: two words (a, b) give u = ((a >> 8) + 1)/2^24 in (0, 1] and
    v = (b >> 8)/2^24, and these R cos(2 pi v) and R sin(2 pi v) with R = sqrt(-2 ln u). Words 0 and 1 make outputs
    0 and 1, words 2 and 3 outputs 2 and 3. Computed in float32 whatever the dtype of ``out``.

    Args:
        seeds: (B,) int64, the bits of a 64-bit seed each.
        samples: (B,) int64 below 2^32, place of the image among those that share a seed.
        draws: (B,) int64 below 2^32, which of several draws for the same measurement.
        step: 0 for the initial state, k + 1 for the noise of step k.
    """
    shape = (out.shape[0], -1)
    count = math.prod(out.shape[1:])
    blocks = torch.arange((count + 3) // 4, dtype=torch.int64, device=out.device)[None, :]
    constant = torch.zeros_like(blocks)
    counter = [blocks, constant + step, samples[:, None] + constant, draws[:, None] + constant]
    words = philox(counter, seeds[:, None])
    normals: list[Tensor] = []
    for a, b in (words[:2], words[2:]):
        radius = torch.sqrt(-2.0 * torch.log(((a >> 8) + 1).to(torch.float32) * 2.0**-24))
        angle = (b >> 8).to(torch.float32) * (2.0 * math.pi * 2.0**-24)
        normals += [radius * torch.cos(angle), radius * torch.sin(angle)]
    stacked = torch.stack(normals, dim=-1).reshape(shape)[:, :count]
    return out.copy_(stacked.reshape(out.shape))


def seed_words(seeds: Sequence[int], device: torch.device) -> Tensor:
    """64-bit unsigned seeds as the int64 tensor with the same bits."""
    signed = [seed - (1 << 64) if seed >= 1 << 63 else seed for seed in seeds]
    return torch.tensor(signed, dtype=torch.int64, device=device)
