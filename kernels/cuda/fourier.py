"""Rows of fourier operators, by transforms of our own where the sides are powers of two, and by torch's elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ...operators import FourierBlur, FourierDownsampling
from ..device_rows import Scales, within
from ..row import Row
from ..spectra import Spectra
from . import ops
from .modal import Modal

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
        self.buffer = torch.empty((0, *self.sides), dtype=torch.complex64)
        self.coordinates, self.packed = torch.empty(0), torch.empty(0)

    def takes_modes(self, row: Row) -> bool:
        """Whether coefficients over the modes are factors of frequencies: alike at f and -f, and in all channels."""
        shape = self.operator.shape
        return row.spectral and all(f.ndim < len(shape) or f.shape[-len(shape)] == 1 for f, _ in row.modes)

    def __call__(
        self,
        out: Tensor,
        after: Tensor | None,
        terms: Sequence[Tensor],
        table: Tensor,
        residual: bool,
        scales: Scales | None,
        modal: Modal | None,
        stream: int,
    ) -> None:
        images, channels = out.shape[:2]
        pairs = images * ((channels + 1) // 2)
        constant, tensors = self.spectra.constant(out), scales or (None, None)
        sets, factors, more = None, None, None
        if modal is not None:
            sets, factors = modal.sets, [self.spectra.factors(f) for f in modal.factors]
            more = None if modal.coordinates is None else self._packed(modal.coordinates)
        count = 1 if modal is None else modal.sums
        if self.own:
            chunk = max(1, scratch_bytes(out.device) // (8 * math.prod(self.sides) * count))
            scratch = self._buffer(min(pairs, chunk, 65535) * count, out)
            row_roots, column_roots = (self._roots(side, out) for side in reversed(self.sides))
            ops.fourier(out, after, terms, table, residual, *tensors, sets, factors, self.spectra.scale, more, constant,
                        row_roots, column_roots, scratch, images, self.factor, stream)  # fmt: skip
            return
        z = self._buffer(pairs * count, out)
        ops.fourier_pack(z, terms, table, residual, *tensors, sets, images, stream)
        spectrum = torch.fft.fft2(z)
        spectra = (count, factors, self.spectra.scale, more, images)
        if self.spectra.low is None:
            ops.fourier_multiply(spectrum, constant, *spectra, stream)
        else:
            ops.fourier_alias(spectrum, constant, *spectra, *self.spectra.low, stream)
        back = torch.fft.ifft2(spectrum[:pairs], norm="forward")
        direct = terms if sets is None else terms[: len(terms) - len(sets)]
        ops.fourier_unpack(
            out, after, direct, table, residual, *within(scales, len(direct)), more is not None, back, images, stream
        )

    def _roots(self, side: int, like: Tensor) -> Tensor:
        return self.operator.constant(f"cuda roots {side}", lambda: roots(side), like)

    def _buffer(self, planes: int, like: Tensor) -> Tensor:
        if len(self.buffer) < planes or self.buffer.device != like.device:
            self.buffer = torch.empty((planes, *self.sides), dtype=torch.complex64, device=like.device)
        return self.buffer[:planes]

    def _packed(self, coordinates: Tensor) -> Tensor:
        """The spectra of the coordinates of a run, which stay what they are in all of its steps."""
        if self.coordinates is not coordinates:
            self.coordinates, self.packed = coordinates, self.spectra.packed(coordinates)
        return self.packed
