"""Gaussian blur, as a separable operator."""

from __future__ import annotations

import math

import torch

from .separable import SeparableBlur

__all__ = ["GaussianBlur"]


class GaussianBlur(SeparableBlur):
    """SeparableBlur with kernel[k] ~ exp(-t^2 / (2 std^2)), t = k - taps // 2, of sum one.

    With an odd number of taps the kernel is symmetric and both conventions are the same. With an even number its first
    tap, at t = -taps / 2, has no partner.

    Args:
        shape: of one image, (C, H, W) or (C, L).
        std: standard deviation in pixels.
        taps: length of the kernel, odd or even.
        boundary: "zero", "reflect" (the edge is repeated), "mirror" (it is not), "replicate", "circular", or "valid"
            for a canvas beyond the border, as for ``SeparableBlur``.
        cutoff: singular values of the 1-D matrices below it count as zero.
        convention: "correlation" or "convolution".

    Raises:
        ValueError: an argument against these rules, or a cutoff that leaves nothing.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        std: float = 3.0,
        taps: int = 61,
        boundary: str = "reflect",
        cutoff: float = 0.03,
        *,
        convention: str = "correlation",
    ) -> None:
        name = type(self).__name__
        if isinstance(std, bool) or not (math.isfinite(std) and std > 0):
            raise ValueError(f"{name}: std must be a finite number > 0, got {std}")
        if not isinstance(taps, int) or isinstance(taps, bool) or taps < 1:
            raise ValueError(f"{name}: taps must be a positive integer, got {taps!r}")
        t = torch.arange(taps, dtype=torch.float64) - taps // 2
        kernel = torch.exp(-0.5 * (t / std) ** 2)
        super().__init__(shape, kernel / kernel.sum(), None, boundary, cutoff, convention=convention)
