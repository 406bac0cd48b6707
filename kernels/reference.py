"""Plain PyTorch reference of every operation of the sampling loop, on any device and in any floating dtype.

Notation: x the state, F the network's output, x0hat = p x + q F, ybar = H+ y, P the projector of the operator,
r = ybar - P x0hat the residual, h = (dF/dx)^T r, z unit noise. ``kernels.row`` says what a row is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import partial, reduce

import torch
from torch import Tensor

from ..operators import Operator
from ..operators.sums import sums
from .row import Key, Ops, Row, Weighted

__all__ = [
    "bind",
    "combine",
    "denoised",
    "device_table",
    "dot",
    "name",
    "normal",
    "per_image",
    "reason",
    "residual",
    "seed_words",
    "takes",
    "update",
]


name = "reference"
device_table = False


def reason(device: torch.device) -> str | None:
    """It runs on every device."""
    return None


def takes(operator: Operator, row: Row, dtypes: Collection[torch.dtype], elements: int) -> str | None:
    """It takes every row."""
    return None


def bind(operator: Operator) -> Ops:
    """The reference operations for one operator."""
    return Ops(denoised, partial(residual, operator), partial(update, operator), normal)


def denoised(x: Tensor, output: Tensor, p: float, q: float) -> Tensor:
    """x0hat = p x + q F, in the dtype of x."""
    return (p * x).add_(output, alpha=q)


def residual(
    operator: Operator,
    tensors: Sequence[Tensor],
    p: float,
    q: float,
    out: Tensor,
    weighted: Weighted | None = None,
    table: Tensor | None = None,
) -> None:
    """out = ybar - P (p x + q F), or weighted V weight (encode(y) - V^T (p x + q F)), in the dtype of ``out``.

    Args:
        tensors: ybar, x and F.
        weighted: over the modes of the operator.
        table: not read.
    """
    ybar, x, output = tensors
    x0hat = denoised(x, output, p, q)
    if weighted is None:
        out.copy_(ybar - operator.project(x0hat))
    else:
        weight, coordinates = weighted
        out.copy_(operator.lift((coordinates - operator.down(x0hat)).mul_(weight)))


def update(
    operator: Operator,
    row: Row,
    tensors: Sequence[Tensor],
    out: Tensor,
    after: Tensor | None,
    c_in: float,
    table: Tensor | None = None,
) -> None:
    """One row of a plan: ``out`` = sum of its terms, and the network's next input ``after`` = c_in out.

    Args:
        operator: applied to the terms that are projected, or have coefficients over its modes.
        row: the coefficients.
        tensors: the registers that the row names; any floating dtype, accumulated in that of out.
        out: the new state; may be none of the tensors read.
        after: where the scaled, cast input of the next evaluation goes, None where the state itself serves.
        c_in: scale of that input.
        table: not read; the numbers are those of the row.
    """
    count = len(row.direct)
    plain, over_modes = list(tensors[:count]), tensors[count:]
    for scale, at in zip(row.scales or (), row.scaled or (), strict=True):
        plain[at] = scaled(plain[at], scale, out)
    add_up(out.zero_(), row.direct, plain)
    projected = add_up(torch.zeros_like(out), row.projected, plain) if row.projected else None
    if row.modes:
        parts = [f * operator.down(scaled(t, c, out)) for t, (f, c) in zip(over_modes, row.modes, strict=True)]
        if projected is not None:
            parts.append(operator.down(projected))
        out.add_(operator.lift(reduce(torch.add, parts)))
    elif projected is not None:
        out.add_(operator.project(projected))
    if after is not None:
        after.copy_(out if c_in == 1.0 else out * c_in)


def scaled(tensor: Tensor, scale: Tensor | None, like: Tensor) -> Tensor:
    """A term in the dtype of ``like``, times its coefficients of every image or of every element."""
    tensor = tensor.to(like.dtype)
    return tensor if scale is None else tensor * per_image(scale, like).to(like.dtype)


def add_up(out: Tensor, numbers: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    """Add the sum of numbers times tensors to ``out``."""
    for number, tensor in zip(numbers, tensors, strict=True):
        if number:
            out.add_(tensor, alpha=number)
    return out


def combine(vector: Mapping[Key, float], registers: Mapping[Key, Tensor]) -> Tensor:
    """Sum of coefficient times register, at least in float32."""
    total = None
    for key, coefficient in vector.items():
        tensor = registers[key]
        tensor = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        total = tensor * coefficient if total is None else total.add_(tensor, alpha=coefficient)
    assert total is not None, "a vector has at least one register"
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
