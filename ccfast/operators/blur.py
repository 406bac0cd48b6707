"""Blur by any kernel of two dimensions with any border."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._convolution import border_index, check_boundary, check_convention, check_kernel, correlation_taps
from ._krylov import Krylov, check_iterations
from .fourier import FourierBlur, half_spectrum, irfft, response_of, rfft
from .operator import Operator, check_cutoff, check_shape
from .separable import Separable, check_fits, correlation_axes, true_float32

__all__ = ["Blur"]


def Blur(  # noqa: N802, named as the members of this folder are
    shape: tuple[int, ...],
    kernel: Any,
    boundary: str = "reflect",
    cutoff: float = 0.03,
    *,
    convention: str = "correlation",
    normalize: bool | None = None,
    iterations: int = 50,
    tolerance: float = 0.0,
) -> Operator:
    """(Hx)[i, j] = sum_ab kernel[a, b] x[i + a - kh // 2, j + b - kw // 2], with pixels beyond the border.

    This is a function, like ``Compose``, and what it returns has the cheapest form that the kernel and border allow.

        a circular border                              -> FourierBlur, with singular values
        a kernel that is a column times a row          -> separable, with singular values
        any other kernel and border                    -> kind "krylov": H and H^T by Fourier transforms on a canvas,
                                                          H+ y and P x by conjugate gradients, as for LinearOperator

    Only the last has no singular values, so that with noise in the measurement DDS and DPS alone work with it. Small
    singular values of its H are not cut off; the number of ``iterations`` limits what they do instead.

    The rule above is a correlation (cv2.filter2D, torch.nn.functional.conv2d, scipy.ndimage.correlate).
    ``convention="convolution"`` flips the kernel, as scipy.signal.convolve2d and scipy.ndimage.convolve do. The borders
    are those of ``SeparableBlur``, with the names that numpy, SciPy, torch and OpenCV give them. With "valid" the image
    is a canvas that reaches beyond the border of the measurement, which has H - kh + 1 rows and W - kw + 1 columns:

        (Hx)[i, j] = sum_ab kernel[a, b] x[i + a, j + b]

    so that nothing has to be assumed of the scene beyond a photograph's border; it is restored with the rest.

    Args:
        shape: of one image, or of the canvas; (C, H, W) or (C, L).
        kernel: (kh, kw), or (B, kh, kw) with one kernel for each image; (k,) or (B, k) for signals. It may be larger
            than the image, unless the boundary is "valid".
        boundary: "zero", "reflect" (the edge is repeated), "mirror" (it is not), "replicate", "circular" or "valid".
        cutoff: singular values below it count as zero, where there are any: |k_hat| of a FourierBlur, those of the 1-D
            matrices of a separable blur.
        convention: "correlation" or "convolution".
        normalize: True divides every kernel by its sum. None keeps it, with a warning if it does not sum to one; False
            keeps it without.
        iterations, tolerance: of conjugate gradients, as for ``LinearOperator``, where they are needed.

    Raises:
        ValueError: an argument against these rules, or a cutoff that leaves nothing.
        TypeError: a kernel that is not numbers.
    """
    name = "Blur"
    shape, boundary = check_shape(name, shape), check_boundary(name, boundary)
    sides, cutoff = shape[1:], check_cutoff(name, cutoff)
    convention = check_convention(name, convention)
    iterations, tolerance = check_iterations(name, iterations, tolerance)
    taps = check_kernel(name, kernel, len(sides), normalize, per_image=True)
    if boundary == "circular":
        return FourierBlur(shape, taps, cutoff, convention=convention, normalize=False)
    lengths = tuple(taps.shape[-len(sides) :])
    if boundary == "valid":
        check_fits(name, sides, lengths)
    taps, center = correlation_taps(taps, tuple(n // 2 for n in lengths), convention)
    axes = None if taps.ndim > len(sides) else outer_factors(taps, rounding_of(kernel))
    if axes is not None:
        pairs = list(zip(axes, center, strict=True))
        return Separable(shape, correlation_axes(name, sides, pairs, boundary, cutoff))
    return CanvasBlur(shape, taps, center, boundary, iterations, tolerance)


def rounding_of(kernel: Any) -> float:
    """The relative rounding of a kernel that was given in float32, or in float64 or anything that it holds exactly."""
    single = np.float32 if str(getattr(kernel, "dtype", "")).removeprefix("torch.") == "float32" else np.float64
    return float(np.finfo(single).eps)


def outer_factors(kernel: Tensor, rounding: float) -> tuple[Tensor, ...] | None:
    """The column and the row whose product a kernel is, but for the rounding of its numbers; None if there are none.

    Their taps have the same sum of magnitudes, so that those of a blur that sums to one sum to one.
    """
    if kernel.ndim == 1:
        return (kernel,)
    u, s, vt = np.linalg.svd(kernel.numpy(), full_matrices=False)
    own = max(kernel.shape) * np.finfo(np.float64).eps  # The SVD rounds by this.
    if len(s) > 1 and s[1] > (4 * rounding + own) * s[0]:
        return None
    column, row = u[:, 0] * np.sign(u[:, 0].sum() or 1.0), vt[0] * np.sign(u[:, 0].sum() or 1.0)
    total = s[0] * np.abs(column).sum() * np.abs(row).sum()
    half = np.sqrt(total)
    return tuple(torch.from_numpy(part * half / np.abs(part).sum()).contiguous() for part in (column, row))


class CanvasBlur(Krylov):
    """H = R K E: the image is continued on a canvas (E), correlated there (K), and what meets no border is kept (R).

    E copies every pixel to the places of the canvas that it stands for, and E^T adds them up. K is a circular
    correlation on sides that are long enough for R to see nothing of the wrap. All three are exact but for rounding.

    Args:
        shape: of one image.
        kernel: taps of the correlation, (kh, kw) or (B, kh, kw); (B, k) for signals.
        center: index of the tap that meets the pixel itself, on each axis.
        boundary: any but "circular".
        iterations, tolerance: of conjugate gradients.
    """

    parts = ("kernel",)

    def __init__(
        self,
        shape: tuple[int, ...],
        kernel: Tensor,
        center: tuple[int, ...],
        boundary: str,
        iterations: int,
        tolerance: float,
    ) -> None:
        sides = shape[1:]
        lengths = kernel.shape[-len(sides) :]
        valid = boundary == "valid"
        self.canvas = sides if valid else tuple(n + k - 1 for n, k in zip(sides, lengths, strict=True))
        kept = tuple(n - k + 1 for n, k in zip(self.canvas, lengths, strict=True))
        super().__init__(shape, (shape[0], *kept))
        self.iterations, self.tolerance = iterations, tolerance
        self.batch = kernel.shape[0] if kernel.ndim > len(sides) else None
        self.kernel, self.boundary = kernel if self.batch is not None else kernel[None], boundary
        self.before = (0,) * len(sides) if valid else center
        self.transformed = tuple(fast_length(n) for n in self.canvas)
        # On each axis, this holds the pixel that every place of the canvas shows.
        self.sources: list[Tensor] = []
        # On each axis, a one marks the pixel (column) that a place outside the image (row) shows.
        self.shown: list[Tensor] = []
        if boundary not in ("valid", "zero"):
            for n, side, first in zip(sides, self.canvas, self.before, strict=True):
                sources = border_index(np.arange(side) - first, n, boundary)
                self.sources.append(torch.from_numpy(sources))
                self.shown.append(torch.from_numpy(np.eye(n)[np.delete(sources, np.arange(first, first + n))]))

    # ------------------------------------------------------------------------------------ E, the border
    def _extend(self, x: Tensor) -> Tensor:
        if self.boundary == "valid":
            return x
        if self.boundary == "zero":
            return torch.nn.functional.pad(x, self._around(self.before))
        for axis in range(len(self.shape) - 1):
            index = self.constant(f"sources {axis}", lambda axis=axis: self.sources[axis], x)
            x = x.index_select(2 + axis, index)
        return x

    def _around(self, before: tuple[int, ...]) -> list[int]:
        """What torch's pad adds before and after each axis, the last axis first."""
        widths: list[int] = []
        for n, side, first in zip(self.shape[:0:-1], self.canvas[::-1], before[::-1], strict=True):
            widths += [first, side - n - first]
        return widths

    def _fold(self, z: Tensor) -> Tensor:
        """E^T: the part of the canvas that is the image, and what lies outside of it, added to the pixels it shows."""
        if self.boundary == "valid":
            return z
        for axis, first in enumerate(self.before):
            n, dim = self.shape[1 + axis], 2 + axis
            inside = z.narrow(dim, first, n)
            if self.boundary != "zero" and self.canvas[axis] > n:
                outside = torch.cat([z.narrow(dim, 0, first), z.narrow(dim, first + n, z.shape[dim] - first - n)], dim)
                shown = self.constant(f"shown {axis}", lambda axis=axis: self.shown[axis], z)
                with true_float32():
                    added = (outside.movedim(dim, -1) @ shown).movedim(-1, dim)
                inside = inside + added
            z = inside
        return z

    # ------------------------------------------------------------------------------------ K, the correlation
    def _filter(self, z: Tensor, conjugate: bool) -> Tensor:
        """The circular correlation, or its adjoint, of what is filled up with zeros to the transformed sides."""

        def make() -> Tensor:
            response = response_of(self.kernel, (0,) * len(self.canvas), self.transformed)
            return half_spectrum(response).contiguous()

        response = self.constant("response", make, z)
        widths = [w for n, m in zip(z.shape[:1:-1], self.transformed[::-1], strict=True) for w in (0, m - n)]
        spectrum = rfft(torch.nn.functional.pad(z, widths))
        return irfft(spectrum * (response.conj() if conjugate else response), self.transformed)

    def _crop(self, z: Tensor, sides: tuple[int, ...]) -> Tensor:
        for axis, n in enumerate(sides):
            z = z.narrow(2 + axis, 0, n)
        return z

    def _forward(self, x: Tensor) -> Tensor:
        return self._crop(self._filter(self._extend(x), False), self.measurement_shape[1:]).contiguous()

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._fold(self._crop(self._filter(y, True), self.canvas)).contiguous()


def fast_length(n: int) -> int:
    """The least m >= n without prime factors above 5, for which Fourier transforms are fast."""
    best = 1 << (n - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            power = three << max(0, -(-n // three) - 1).bit_length()
            best = min(best, power)
            three *= 3
        five *= 5
    return best
