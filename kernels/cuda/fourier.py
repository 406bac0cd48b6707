"""Rows of fourier operators, by transforms of our own where the sides are powers of two, and by torch's elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ...operators import FourierBlur, FourierDownsampling
from ..spectra import Spectra
from . import ops

__all__ = ["SIDES", "Fourier", "roots"]

SIDES = frozenset(2**k for k in range(6, 12))
"""The sides that csrc/cuda/fourier.cuh can transform: 64, 128, ..., 2048."""

SCRATCH = 20 * 2**20
"""The bytes of a buffer between two kernels where the L2 cache is of unknown size: two fifths of that of an H100."""


def roots(side: int) -> Tensor:
    """The roots of unity of a transform of ``side`` points, complex128, in the order of csrc/cuda/fft.cuh.

    The first stage, of radix 8, needs none. A stage of radix R that follows stages of product S reads
    exp(-2 pi i 2^q m / (S R)) as [q, m], for q < log2 R and m < S.
    """
    parts, done = [], 8
    while done < side:
        radix = min(8, side // done)
        powers = 2.0 ** torch.arange(int(math.log2(radix)), dtype=torch.float64)
        angle = -2 * math.pi * powers[:, None] * torch.arange(done, dtype=torch.float64) / (done * radix)
        parts.append(torch.polar(torch.ones_like(angle), angle).flatten())
        done *= radix
    return torch.cat(parts)


@lru_cache
def scratch_bytes(device: torch.device) -> int:
    """Two fifths of the L2 cache, so that what one kernel writes is still in it when the next one reads it."""
    if device.type != "cuda":
        return SCRATCH
    return int(0.4 * torch.cuda.get_device_properties(device).L2_cache_size) or SCRATCH


class Fourier:
    """The row kernel of a fourier operator, which transforms complex planes (images * pairs, H, W).

    A pair is two channels of one image, packed as one complex plane.
    """

    def __init__(self, operator: FourierBlur | FourierDownsampling) -> None:
        self.operator, self.spectra = operator, Spectra(operator)
        self.sides = self.spectra.sides
        self.factor = operator.factor if isinstance(operator, FourierDownsampling) else 1
        # Columns that alias must lie in one block, which holds four columns of 2048 rows, or at least eight of fewer.
        self.own = SIDES.issuperset(self.sides) and self.factor in (1, 2, 4, 4 if self.sides[0] == 2048 else 8)
        self.buffer = torch.empty(0)

    def __call__(
        self, out: Tensor, after: Tensor | None, terms: Sequence[Tensor], table: Tensor, residual: bool, stream: int
    ) -> None:
        images, channels = out.shape[:2]
        pairs = images * ((channels + 1) // 2)
        constant = self.spectra.constant(out)
        if self.own:
            chunk = max(1, scratch_bytes(out.device) // (8 * math.prod(self.sides)))
            scratch = self._buffer(min(pairs, chunk, 65535), out)
            row_roots, column_roots = (self._roots(side, out) for side in reversed(self.sides))
            ops.fourier(out, after, terms, table, residual, constant, row_roots, column_roots, scratch, images,
                        self.factor, stream)  # fmt: skip
            return
        z = self._buffer(pairs, out)
        ops.fourier_pack(z, terms, table, residual, images, stream)
        spectrum = torch.fft.fft2(z)
        if self.spectra.low is None:
            ops.fourier_multiply(spectrum, constant, images, stream)
        else:
            ops.fourier_alias(spectrum, constant, images, *self.spectra.low, stream)
        ops.fourier_unpack(
            out, after, terms, table, residual, torch.fft.ifft2(spectrum, norm="forward"), images, stream
        )

    def _roots(self, side: int, like: Tensor) -> Tensor:
        return self.operator.constant(f"cuda roots {side}", lambda: roots(side), like)

    def _buffer(self, pairs: int, like: Tensor) -> Tensor:
        shape = (pairs, *self.sides)
        if self.buffer.shape != shape or self.buffer.device != like.device:
            self.buffer = torch.empty(shape, dtype=torch.complex64, device=like.device)
        return self.buffer
