"""The row of a fourier operator: pack two channels as a complex plane, transform, multiply, transform back, unpack."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...operators import FourierBlur, FourierDownsampling
from ..spectra import Spectra
from . import ops

__all__ = ["Fourier"]

_FLOAT = torch.empty(0)


class Fourier:
    """The row of one operator.

    A blur multiplies every frequency by a number. A downsampling also adds up the frequencies that alias.
    """

    def __init__(self, operator: FourierBlur | FourierDownsampling) -> None:
        self.spectra = Spectra(operator)
        self.constant = self.spectra.constant(_FLOAT)
        self.spectrum = torch.empty(0)

    def __call__(self, out: Tensor, after: Tensor | None, c_in: float, terms: list[Tensor], *numbers: Any) -> None:
        direct, projected, *scaled = numbers
        images, channels = out.shape[:2]
        shape = (images * ((channels + 1) // 2), *self.spectra.sides)
        # The packed planes are as large as ``out``, which nothing reads before it is written.
        if channels % 2 == 0 and out.dtype == torch.float32:
            z = torch.view_as_complex(out.view(*shape, 2))
        else:
            if self.spectrum.shape != shape:
                self.spectrum = torch.empty(shape, dtype=torch.complex64)
            z = self.spectrum
        ops.fourier_pack(z, terms, projected, *scaled, images)
        transformed = torch.fft.fft2(z)
        if self.spectra.low is None:
            ops.fourier_multiply(z, transformed, self.constant, images)
        else:
            ops.fourier_alias(z, transformed, self.constant, images, *self.spectra.low)
        # The inverse transform takes as much memory as this one.
        del transformed
        back = torch.fft.ifft2(z, norm="forward")
        ops.fourier_unpack(out, after, c_in, terms, direct, *scaled, back, images)
