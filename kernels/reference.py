"""Plain PyTorch reference of every operation of the sampling loop, on any device and in any floating dtype.

x is the state, F is the network's output and x0hat = p x + q F is the denoised estimate. H is the operator, ybar is
H+ y and P is H+ H. r = ybar - P x0hat is the residual, h is (dF/dx)^T r and z is unit noise. ``kernels.row`` says what
a row is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import partial, reduce

import numpy as np
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
    """None, since it runs on every device."""
    return None


def takes(operator: Operator, row: Row, dtypes: Collection[torch.dtype], elements: int) -> str | None:
    """None, since it runs every row."""
    return None


def bind(operator: Operator) -> Ops:
    """The reference operations for one operator."""
    return Ops(denoised, partial(residual, operator), partial(update, operator), normal)


def denoised(x: Tensor, output: Tensor, p: float, q: float) -> Tensor:
    """x0hat = p x + q F, in the dtype of x."""
    return (p * x).add_(output, alpha=q)


def residual(
    operator: Operator,
    terms: Sequence[Tensor],
    p: float,
    q: float,
    out: Tensor,
    weighted: Weighted | None,
    table: Tensor | None,
) -> None:
    """Write ybar - P (p x + q F) to ``out``, or with ``weighted`` V weight (encode(y) - V^T (p x + q F)).

    Args:
        operator: The operator H.
        terms: The tensors ybar, x and F.
        p, q: The coefficients of x0hat.
        out: The residual, in any floating dtype.
        weighted: A weight over the modes of the operator, and encode(y).
        table: It is not read.
    """
    ybar, x, output = terms
    x0hat = denoised(x, output, p, q)
    if weighted is None:
        out.copy_(ybar - operator.project(x0hat))
    else:
        weight, coordinates, _ = weighted
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
    """Run a row of a plan: write the sum of its terms to ``out``, and the network's next input c_in out to ``after``.

    Args:
        operator: The operator that projects terms, and to whose modes coefficients belong.
        row: The coefficients.
        tensors: The registers that the row names, in any floating dtype. They are summed in the dtype of ``out``.
        out: The new state, which must be none of ``tensors``.
        after: The network's next input, in any floating dtype; None where the state itself serves.
        c_in: The scale of that input.
        table: It is not read, since the row holds the numbers.
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
    """A tensor in the dtype of ``like``, times ``scale``: nothing, or a number for every image or every element."""
    tensor = tensor.to(like.dtype)
    return tensor if scale is None else tensor * per_image(scale, like).to(like.dtype)


def add_up(out: Tensor, numbers: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    """Add the sum of ``numbers`` times ``tensors`` to ``out``, and return it."""
    for number, tensor in zip(numbers, tensors, strict=True):
        if number:
            out.add_(tensor, alpha=number)
    return out


def combine(vector: Mapping[Key, float], registers: Mapping[Key, Tensor]) -> Tensor:
    """The sum of coefficients times registers, in float32 or wider."""
    total = None
    for key, coefficient in vector.items():
        tensor = registers[key]
        tensor = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        total = tensor * coefficient if total is None else total.add_(tensor, alpha=coefficient)
    assert total is not None, "a vector has at least one register"
    return total


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of every image of a with that of b, (B,) float64."""
    return sums(a * b, torch.float64)


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Values (B,) as (B, 1, ...), which broadcasts over images; values with more dimensions as they are."""
    return values.reshape(-1, *[1] * (like.ndim - 1)) if values.ndim == 1 else values


# ---------------------------------------------------------------------------------------------------------- noise
def philox(counter: list[Tensor], key: Tensor) -> list[Tensor]:
    """Philox 4x32-10 (Salmon et al., SC 2011): four words of 32 bits from a counter of four words and a key of two.

    A word is an int64 tensor of values below 2^32, and the shapes of all words broadcast. ``key`` is one int64 tensor
    that holds both words of the key, the first one in its low half.
    """
    mask = 0xFFFFFFFF
    c0, c1, c2, c3 = counter
    k0, k1 = key & mask, (key >> 32) & mask
    for _ in range(10):
        product0, product2 = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # Int64 wraps, which leaves the right 64 bits.
        c0, c2 = ((product2 >> 32) & mask) ^ c1 ^ k0, ((product0 >> 32) & mask) ^ c3 ^ k1
        c1, c3 = product2 & mask, product0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return [c0, c1, c2, c3]


def normal(out: Tensor, seeds: Tensor, samples: Tensor, draws: Tensor, step: int) -> Tensor:
    """Fill ``out`` (B, ...) with unit Gaussian noise, which depends on seed, sample, draw, step and element alone.

    Element i of image b is output i % 4 of Philox 4x32-10 with key seeds[b] and counter (i // 4, step, samples[b],
    draws[b]), made normal by the transform of Box and Muller. It takes two words (a, b) to u = ((a >> 8) + 1)/2^24 in
    (0, 1] and v = (b >> 8)/2^24, and these to R cos(2 pi v) and R sin(2 pi v) with R = sqrt(-2 ln u). Words 0 and 1
    make outputs 0 and 1, and words 2 and 3 make outputs 2 and 3. All is computed in float32, whatever the dtype of
    ``out``.

    Args:
        out: The tensor that is filled and returned.
        seeds: The bits of the 64-bit seed of every image, (B,) int64.
        samples: The place of every image among those that share a seed, (B,) int64 below 2^32.
        draws: The number of the draw among those for the same measurement, (B,) int64 below 2^32.
        step: The number 0 for the initial state, and k + 1 for the noise of step k.
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
    """The int64 tensor that has the same bits as these 64-bit unsigned seeds."""
    return torch.from_numpy(np.array(seeds, dtype=np.uint64).view(np.int64)).to(device)
