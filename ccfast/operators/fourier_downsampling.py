"""Circular blur followed by decimation: super-resolution with a known kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .fourier import Circular, even, fft, half_spectrum, hartley, irfft
from .operator import wide

__all__ = ["FourierDownsampling"]


class FourierDownsampling(Circular):
    """Circular blur as FourierBlur, then every factor-th pixel from 0 on along each spatial dimension.

    The blur is a correlation, and a convolution with ``convention="convolution"``, which flips the kernel, as for
    ``FourierBlur``. Let a be the frequencies that alias to the low-resolution frequency p. H H^T is diagonal in the
    low-resolution Fourier basis:

        s_p = factor^(-d/2) n_p,    n_p = sqrt(sum_a |k_hat_a|^2),    v_p = conj(k_hat_a) / n_p over the aliases

    Real coordinates are the Hartley transform of the low-resolution spectrum <v_p, X>; they have the shape of the
    measurement, (C, H/factor, W/factor). U is the Hartley basis itself.

    Args:
        shape: of one image, (C, H, W) or (C, L).
        kernel, convention, normalize, boundary: as for ``FourierBlur``.
        factor: ratio of the sides.
        cutoff: frequencies with |k_hat| below it count as zero, before aliasing.

    Raises:
        ValueError: an argument against these rules, or a cutoff that leaves nothing.
        TypeError: a kernel that is not numbers.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        kernel: Any,
        factor: int,
        cutoff: float = 0.03,
        *,
        convention: str = "correlation",
        normalize: bool | None = None,
        boundary: str = "circular",
    ) -> None:
        super().__init__(shape, factor, kernel, cutoff, convention, normalize, boundary)
        self.factor = int(factor)
        self.response = self._split(self.response)
        norm = even(self.response.abs().square().sum(self._aliases)).sqrt()
        self.singular_values = self._of_all_images(norm * self.factor ** (-0.5 * (len(self.shape) - 1)))

    @property
    def _aliases(self) -> tuple[int, ...]:
        return tuple(range(2, 2 * len(self.shape), 2))

    def _split(self, spectrum: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, factor, h, factor, w): frequency a h + p of an axis goes to [a, p]."""
        sizes = [size for n in self.measurement_shape[1:] for size in (self.factor, n)]
        return spectrum.reshape(*spectrum.shape[:2], *sizes)

    def _basis(self, like: Tensor) -> Tensor:
        """conj(v_p), the row of V^T, split; zero where s_p is."""

        def make() -> Tensor:
            norm = self.response.abs().square().sum(self._aliases, keepdim=True).sqrt()
            return self.response / norm.where(norm > 0, 1.0)

        return self.constant("basis", make, like)

    def _inverse(self, like: Tensor) -> Tensor:
        """1 / s_p, or zero where s_p is: on the coordinates of encode and decode."""

        def make() -> Tensor:
            s = self.singular_values
            return torch.where(s > 0, 1 / s.where(s > 0, 1.0), 0.0)

        return self.constant("inverse", make, like)

    def _gather(self, x: Tensor) -> Tensor:
        """The low-resolution spectrum <v_p, X> of an image."""
        return (self._split(fft(x)) * self._basis(x)).sum(self._aliases)

    def _spread(self, spectrum: Tensor) -> Tensor:
        """The image V with this low-resolution spectrum."""
        for dim in self._aliases:
            spectrum = spectrum.unsqueeze(dim)
        full = (spectrum * self._basis(spectrum).conj()).reshape(*spectrum.shape[:2], *self.shape[1:])
        return irfft(half_spectrum(full), self.shape[1:])

    def down(self, x: Tensor) -> Tensor:
        spectrum = self._gather(wide(x))
        return (spectrum.real - spectrum.imag).to(x.dtype)

    def lift(self, c: Tensor) -> Tensor:
        return self._spread(fft(hartley(wide(c)))).to(c.dtype)

    def encode(self, y: Tensor) -> Tensor:
        return (hartley(wide(y)) * self._inverse(y)).to(y.dtype)

    def decode(self, c: Tensor) -> Tensor:
        kept = self.constant("kept", lambda: (self.singular_values > 0).to(torch.float64), c)
        return hartley(wide(c) * kept).to(c.dtype)

    def pinv(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        spectrum = fft(wide(y))
        return self._spread(spectrum * self._inverse(spectrum)).to(y.dtype)

    def project(self, x: Tensor) -> Tensor:
        self.check_image(x)
        return self._spread(self._gather(wide(x))).to(x.dtype)
