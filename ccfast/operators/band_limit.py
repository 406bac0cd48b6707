"""Band limiting: the frequencies of a band are observed, the others are missing."""

from __future__ import annotations

import math

import torch

from .fourier import FourierBlur, impulse_kernel
from .operator import check_shape

__all__ = ["BandLimit"]


class BandLimit(FourierBlur):
    """The ideal band-pass: Hx is x with the frequencies low <= f <= high only, circularly. Singular values are 0 and 1.

    H = P, a projection; the measurement has the shape of the signal (an audio recording after a telephone, say). On
    images f is the radial frequency, sqrt(f_rows^2 + f_columns^2).

    Args:
        shape: of one signal (C, L) or image (C, H, W).
        low, high: 0 <= low <= high, in the unit of ``rate``; the bounds belong to the band.
        rate: samples per unit: 1 for frequencies in cycles a sample (up to 1/2), the sampling rate for Hz.

    Raises:
        ValueError: an argument against these rules, or a band without a frequency of the signal.
    """

    def __init__(self, shape: tuple[int, ...], low: float, high: float, rate: float = 1.0) -> None:
        name = type(self).__name__
        shape = check_shape(name, shape)
        low, high, rate = float(low), float(high), float(rate)
        if not (0 <= low <= high and rate > 0 and math.isfinite(rate)):
            raise ValueError(f"{name}: must have 0 <= low <= high and rate > 0, got {low}, {high} and {rate}")
        square = torch.zeros((), dtype=torch.float64)
        for n in shape[1:]:
            square = square[..., None] + (torch.fft.fftfreq(n, dtype=torch.float64) * rate).square()
        frequency = square.sqrt()
        # A bound that is a frequency of the signal belongs to the band, whatever its last digit is.
        slack = 1e-12 * rate
        kept = ((frequency >= low - slack) & (frequency <= high + slack)).to(torch.float64)[None]
        if not kept.any():
            raise ValueError(
                f"{name}: low and high must enclose a frequency of the signal (a multiple of {rate / shape[-1]:.6g} "
                f"up to {rate / 2:g} in the last dimension), got {low} and {high}"
            )
        super().__init__(shape, impulse_kernel(kept[None])[0], cutoff=0.5, normalize=False)
        # The transforms of the kernel and back leave rounding errors, which are taken out here.
        self.response, self.singular_values = kept[None].to(torch.complex128), kept
