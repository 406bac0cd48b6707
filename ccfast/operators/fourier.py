"""Circular blur by any kernel (motion, defocus, Gaussian), diagonal in the Fourier basis."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._convolution import check_convention, check_kernel, correlation_taps
from .operator import Operator, check_cutoff, check_factor, check_shape, complex_dtype, wide

__all__ = ["FourierBlur"]


class Circular(Operator):
    """A circular blur that a stride may follow; all that differs between two of one shape is k_hat, ``response``."""

    kind = "fourier"
    parts = ("singular_values", "response")
    exchangeable = True

    def __init__(
        self,
        shape: tuple[int, ...],
        factor: int,
        kernel: Any,
        cutoff: float,
        convention: str,
        normalize: bool | None,
        boundary: str,
    ) -> None:
        name = type(self).__name__
        shape = check_shape(name, shape)
        check_circular(name, boundary)
        factor = check_factor(name, factor, shape)
        super().__init__(shape, (shape[0], *(n // factor for n in shape[1:])))
        self.response, self.batch = truncated_response(name, kernel, shape[1:], cutoff, convention, normalize)

    def _of_all_images(self, s: Tensor) -> Tensor:
        """The singular values from those of every kernel, (1 or B, 1, ...)."""
        return s[0] if self.batch is None else s


class FourierBlur(Circular):
    """(Hx)[i, j] = sum_ab kernel[a, b] x[i + a - kh // 2, j + b - kw // 2], indices modulo the image.

    This is a correlation, the rule of cv2.filter2D, of torch.nn.functional.conv2d and of scipy.ndimage.correlate.
    ``convention="convolution"`` flips the kernel, as scipy.signal.convolve and scipy.ndimage.convolve do and as a
    measured point spread function asks for,

        (Hx)[i, j] = sum_ab kernel[a, b] x[i - a + kh // 2, j - b + kw // 2]

    and differs where the kernel is not symmetric. The border is circular; ``Blur`` takes kernels with any other.

    In the unitary Fourier basis H multiplies by k_hat. Real coordinates: V is the Hartley basis cas(2 pi f.x), so
    that down(x) = Re - Im of the spectrum, S = |k_hat| and U = H V S^-1; these are orthonormal because |k_hat| is
    even in f. Coordinates have the shape of the image and are zero where |k_hat| is below the cutoff.

    Args:
        shape: of one image, (C, H, W) or (C, L).
        kernel: (kh, kw), or (B, kh, kw) with one kernel for each image; (k,) or (B, k) for signals. It may be larger
            than the image, around which it then wraps.
        cutoff: frequencies with |k_hat| below it count as zero.
        convention: "correlation" or "convolution".
        normalize: True divides every kernel by its sum. None keeps it, with a warning if it does not sum to one; False
            keeps it without.
        boundary: "circular", the only one that a Fourier transform knows.

    Raises:
        ValueError: an argument against these rules, or a cutoff that leaves nothing.
        TypeError: a kernel that is not numbers.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        kernel: Any,
        cutoff: float = 0.03,
        *,
        convention: str = "correlation",
        normalize: bool | None = None,
        boundary: str = "circular",
    ) -> None:
        super().__init__(shape, 1, kernel, cutoff, convention, normalize, boundary)
        self.singular_values = self._of_all_images(even(self.response.abs()))

    def _multiplier(self, power: int, like: Tensor, half: bool = True) -> Tensor:
        """k_hat |k_hat|^(power - 1) where that is kept, zero elsewhere: 1 for H, 0 for U V^T, -1 for H+ transposed."""

        def make() -> Tensor:
            s = self.singular_values
            value = torch.where(s > 0, self.response * s.where(s > 0, 1.0) ** (power - 1), 0.0)
            return half_spectrum(value).contiguous() if half else value

        return self.constant(f"multiplier {power} {half}", make, like)

    def _kept(self, like: Tensor, half: bool) -> Tensor:
        def make() -> Tensor:
            kept = (self.singular_values > 0).to(torch.float64)
            return half_spectrum(kept).contiguous() if half else kept

        return self.constant(f"kept {half}", make, like)

    def _filter(self, x: Tensor, multiplier: Tensor) -> Tensor:
        return irfft(rfft(wide(x)) * multiplier, self.shape[1:]).to(x.dtype)

    def down(self, x: Tensor) -> Tensor:
        return (hartley(wide(x)) * self._kept(x, half=False)).to(x.dtype)

    def lift(self, c: Tensor) -> Tensor:
        return hartley(wide(c) * self._kept(c, half=False)).to(c.dtype)

    def encode(self, y: Tensor) -> Tensor:
        """The Hartley transform of H+ y, from one Fourier transform."""
        spectrum = fft(wide(y)) * self._multiplier(-1, y, half=False).conj()
        return (spectrum.real - spectrum.imag).to(y.dtype)

    def decode(self, c: Tensor) -> Tensor:
        return self._filter(hartley(wide(c)), self._multiplier(0, c)).to(c.dtype)

    # Each takes a transform, a multiplier and the inverse, where the general rule takes two Hartley transforms.
    def forward(self, x: Tensor) -> Tensor:
        self.check_image(x)
        return self._filter(x, self._multiplier(1, x))

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return self._filter(y, self._multiplier(1, y).conj())

    def pinv(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return self._filter(y, self._multiplier(-1, y).conj())

    def project(self, x: Tensor) -> Tensor:
        self.check_image(x)
        return self._filter(x, self._kept(x, half=True))


# ---------------------------------------------------------------------------------------- spectra of kernels
def check_circular(name: str, boundary: str) -> None:
    """ValueError unless the border is circular, with the operator that takes others."""
    if boundary != "circular":
        raise ValueError(
            f"{name}: boundary must be 'circular', got {boundary!r}; Blur(shape, kernel, boundary={boundary!r}) takes "
            "any border, and may be followed by a stride with Compose"
        )


def truncated_response(
    name: str, kernel: Any, sides: tuple[int, ...], cutoff: float, convention: str, normalize: bool | None
) -> tuple[Tensor, int | None]:
    """k_hat (1 or B, 1, *sides), complex128, exactly zero where |k_hat| < cutoff; and B, None for a common kernel."""
    cutoff, convention = check_cutoff(name, cutoff), check_convention(name, convention)
    kernel = check_kernel(name, kernel, len(sides), normalize, per_image=True)
    batch = kernel.shape[0] if kernel.ndim == len(sides) + 1 else None
    kernel = kernel if batch is not None else kernel[None]
    middle = tuple(taps // 2 for taps in kernel.shape[1:])
    response = response_of(*correlation_taps(kernel, middle, convention), sides)
    size = even(response.abs())
    largest = size.flatten(1).amax(1)
    if ((largest < cutoff) | (largest == 0)).any():
        raise ValueError(
            f"{name}: cutoff must leave a frequency, got {cutoff} with a largest |k_hat| of {largest.min():.3g}"
        )
    # A |k_hat| that is zero up to rounding counts as zero without a cutoff, too.
    rounding = largest.reshape(-1, *[1] * (size.ndim - 1)) * size[0].numel() * torch.finfo(torch.float64).eps
    return torch.where(size < rounding.clamp(min=cutoff), 0.0, response), batch


def response_of(kernel: Tensor, center: tuple[int, ...], sides: tuple[int, ...]) -> Tensor:
    """k_hat (B, 1, *sides) of the circular correlation with kernels (B, ...) that have this centre."""
    # The impulse response holds tap a at index center - a, wrapped; k_hat is its Fourier transform.
    for dim, (n, middle) in enumerate(zip(sides, center, strict=True), start=1):
        index = (middle - torch.arange(kernel.shape[dim])) % n
        wrapped = torch.zeros(*kernel.shape[:dim], n, *kernel.shape[dim + 1 :], dtype=torch.float64)
        kernel = wrapped.index_add(dim, index, kernel)
    return torch.fft.fftn(kernel[:, None], dim=tuple(range(2, kernel.ndim + 1)))


def impulse_kernel(response: Tensor) -> Tensor:
    """The kernel, of the size of the image, with this k_hat (B, 1, *sides): the inverse of ``truncated_response``."""
    dims = tuple(range(2, response.ndim))
    kernel = torch.fft.ifftn(response, dim=dims).real
    for dim in dims:  # Tap a is the impulse response at index n // 2 - a.
        n = kernel.shape[dim]
        kernel = kernel.index_select(dim, (n // 2 - torch.arange(n)) % n)
    return kernel[:, 0]


def even(size: Tensor) -> Tensor:
    """Mean of a real spectrum (B, 1, ...) over f and -f: equal but for rounding, on which a cutoff must not depend."""
    dims = tuple(range(2, size.ndim))
    return (size + size.flip(dims).roll((1,) * len(dims), dims)) / 2


# ---------------------------------------------------------------------------------------- unitary transforms
# They run over all dimensions after (B, C). Without images there is nothing to transform, which MKL's FFT refuses.
def fft(x: Tensor) -> Tensor:
    if x.numel() == 0:
        return x.to(complex_dtype(x.dtype))
    return torch.fft.fftn(x, dim=tuple(range(2, x.ndim)), norm="ortho")


def rfft(x: Tensor) -> Tensor:
    if x.numel() == 0:
        return half_spectrum(x).to(complex_dtype(x.dtype))
    return torch.fft.rfftn(x, dim=tuple(range(2, x.ndim)), norm="ortho")


def irfft(spectrum: Tensor, sides: tuple[int, ...]) -> Tensor:
    if spectrum.numel() == 0:
        return spectrum.real.new_empty((*spectrum.shape[:2], *sides))
    return torch.fft.irfftn(spectrum, s=sides, dim=tuple(range(2, spectrum.ndim)), norm="ortho")


def hartley(x: Tensor) -> Tensor:
    """sum_x x cas(2 pi f.x) / sqrt(n): real, orthonormal and its own inverse."""
    spectrum = fft(x)  # As x is real, torch computes half of the frequencies and fills the rest by symmetry.
    return spectrum.real - spectrum.imag


def half_spectrum(spectrum: Tensor) -> Tensor:
    """The frequencies that rfft keeps."""
    return spectrum[..., : spectrum.shape[-1] // 2 + 1]
