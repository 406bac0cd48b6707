"""Plain PyTorch reference of every operation of the sampling loop, on any device and in any floating dtype.

Notation: x the state, F the network's output, x0hat = p x + q F, ybar = H+ y, P the projector of the operator,
r = ybar - P x0hat the residual, h = (dF/dx)^T r, z unit noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["Ops", "bind", "denoised", "normal", "residual", "seed_words", "update"]


class Projector(Protocol):
    """What the kernels use of an operator."""

    def project(self, x: Tensor) -> Tensor: ...


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


def residual(operator: Projector, x: Tensor, output: Tensor, ybar: Tensor, p: float, q: float, out: Tensor) -> None:
    """out = ybar - P (p x + q F), cast to the dtype of ``out`` (the network's)."""
    out.copy_(ybar - operator.project(denoised(x, output, p, q)))


def update(
    operator: Projector,
    row: Mapping[str, float],
    tensors: Mapping[str, Tensor],
    out: Tensor,
    input_out: Tensor | None,
    c_in: float,
) -> None:
    """One row of a plan: ``out`` = sum of coefficient times term, and the network's next input = c_in out.

    Args:
        operator: applied to the terms Px, PF and Ph.
        row: coefficient of each term of ``ccfast.plan.TERMS`` that the step uses.
        tensors: x, F, r, h, ybar and z, those that the row names; any floating dtype, accumulated in that of out.
        out: the new state; may be none of the tensors read.
        input_out: where the scaled, cast input of the next evaluation goes, None where the state itself serves.
        c_in: scale of that input.
    """
    out.zero_()
    projected = None
    for term, coefficient in row.items():
        if term in ("Px", "PF", "Ph"):
            if projected is None:
                projected = torch.zeros_like(out)
            projected.add_(tensors[term[1:]], alpha=coefficient)
        else:
            out.add_(tensors[term], alpha=coefficient)
    if projected is not None:
        out.add_(operator.project(projected))
    if input_out is not None:
        input_out.copy_(out if c_in == 1.0 else out * c_in)


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
