"""What all blurs share: the taps of a kernel, the pixels that they meet beyond the border, and the checks of both."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .operator import check_array

__all__ = ["BOUNDARIES", "border_index", "check_boundary", "check_convention", "check_kernel", "correlation_taps"]

BOUNDARIES = ("zero", "reflect", "mirror", "replicate", "circular", "valid")
CONVENTIONS = ("correlation", "convolution")

OTHER_NAMES = {
    "constant": "'zero', with constant zero",
    "zeros": "'zero'",
    "symmetric": "'reflect', which repeats the edge",
    "grid-mirror": "'reflect', which repeats the edge",
    "reflect_101": "'mirror', which does not repeat the edge",
    "reflect101": "'mirror', which does not repeat the edge",
    "edge": "'replicate'",
    "nearest": "'replicate'",
    "wrap": "'circular'",
    "grid-wrap": "'circular'",
    "periodic": "'circular'",
}
"""What other tools call a border. Their "reflect" is ambiguous: it is "mirror" here if it is numpy's or torch's."""

SUM_TOLERANCE = 2e-3
"""A kernel that was printed with three digits sums to one within this."""


def check_boundary(name: str, boundary: str) -> str:
    """One of BOUNDARIES, or ValueError with our word for it where another tool's was given."""
    if not isinstance(boundary, str) or boundary not in BOUNDARIES:
        other = OTHER_NAMES.get(boundary.lower().removeprefix("border_")) if isinstance(boundary, str) else None
        hint = f"; here this is called {other}" if other else ""
        raise ValueError(f"{name}: boundary must be one of {', '.join(BOUNDARIES)}, got {boundary!r}{hint}")
    return boundary


def check_convention(name: str, convention: str) -> str:
    """One of CONVENTIONS, or ValueError."""
    if convention not in CONVENTIONS:
        raise ValueError(f"{name}: convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
    return convention


def check_kernel(name: str, kernel: Any, dims: int, normalize: bool | None, per_image: bool = False) -> Tensor:
    """The taps in float64, with ``dims`` dimensions, or one more where there may be a kernel for each image.

    Args:
        normalize: True divides every kernel by its sum, False keeps it, and None keeps it with a UserWarning where the
            sum is not one.

    Raises:
        ValueError: a wrong number of dimensions, no taps, values that are not finite, taps that are all zero, or a sum
            of zero that is to be normalised.
        TypeError: taps that are not real numbers.
    """
    if normalize is not None and not isinstance(normalize, bool):
        raise ValueError(f"{name}: normalize must be True, False or None, got {normalize!r}")
    colours = _is_colour_picture(kernel, dims)
    kernel = check_array(name, "kernel", kernel)
    extra = kernel.ndim - dims
    if extra not in ((0, 1) if per_image else (0,)) or kernel.numel() == 0:
        more = " (one more with a kernel for each image)" if per_image else ""
        rule = f"have {dims} dimensions{more} and not be empty" if per_image or dims > 1 else "be 1-D and not empty"
        raise ValueError(f"{name}: kernel must {rule}, got shape {tuple(kernel.shape)}{_cure(kernel, dims)}")
    if colours:
        raise ValueError(
            f"{name}: kernel must be (kh, kw) or (B, kh, kw), got the bytes of a colour picture, shape "
            f"{tuple(kernel.shape)}; take one of its channels, kernel[..., 0]"
        )
    taps = kernel.reshape(1 if extra == 0 else len(kernel), -1)
    empty = ~taps.any(1)
    if empty.any():
        raise ValueError(f"{name}: kernel must have a tap that is not zero, got zeros only{_image(extra, empty)}")
    total, size = taps.sum(1), taps.abs().sum(1)
    vanishing = total.abs() <= 1e-8 * size
    if normalize:
        if vanishing.any():
            raise ValueError(
                f"{name}: normalize=True needs a kernel with a sum other than zero, got one that sums to zero, as "
                f"filters for edges do{_image(extra, vanishing)}; pass normalize=False to keep it as it is"
            )
        return kernel / total.reshape(-1, *(1,) * dims) if extra else kernel / total
    away = (total - 1).abs() > SUM_TOLERANCE
    if normalize is None and away.any():
        worst = int((total - 1).abs().argmax())
        cure = "normalize=False says that this is meant"
        if not vanishing[worst]:
            cure = f"normalize=True divides it by its sum, {cure}"
        _warn_the_caller(
            f"{name}: kernel sums to {float(total[worst]) if not vanishing[worst] else 0.0:.6g}{_image(extra, away)}, "
            f"not to 1, so that H changes the brightness of an image; {cure}"
        )
    return kernel


def _is_colour_picture(kernel: Any, dims: int) -> bool:
    """Whether these are the bytes of a picture (kh, kw, 3 or 4), which would pass for a kernel of each image."""
    array = kernel.detach().cpu().numpy() if isinstance(kernel, Tensor) and kernel.dtype == torch.uint8 else kernel
    if not isinstance(array, np.ndarray):
        if not hasattr(array, "getbands"):  # Pillow's pictures have it
            return False
        array = np.asarray(array)
    return array.dtype == np.uint8 and array.ndim == dims + 1 == 3 and array.shape[-1] in (3, 4)


def _cure(kernel: Tensor, dims: int) -> str:
    """What to write instead of a kernel with a wrong number of dimensions."""
    if dims == 1 and kernel.ndim == 2 and 1 in kernel.shape:
        return "; write kernel.ravel() for a row or a column of taps"
    if dims == 1 and kernel.ndim == 2:
        return "; write Blur(shape, kernel, boundary=...) for a kernel of two dimensions"
    if dims == 2 and kernel.ndim == 1 and kernel.numel():
        return "; write SeparableBlur(shape, kernel) for the same taps on rows and on columns"
    return ""


def _image(extra: int, which: Tensor) -> str:
    """Which images are meant, where there is a kernel for each."""
    return f" for images {which.nonzero().flatten().tolist()}" if extra else ""


def _warn_the_caller(message: str) -> None:
    """A UserWarning at the line that called this folder."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("ccfast.operators"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def correlation_taps(kernel: Tensor, center: tuple[int, ...], convention: str) -> tuple[Tensor, tuple[int, ...]]:
    """The kernel and the index of its centre, along the last dimensions, with which a correlation does the same.

    A convolution is a correlation with the flipped kernel:

        sum_a kernel[a] x[i - a + c] = sum_b flipped[b] x[i + b - (n - 1 - c)],    flipped[b] = kernel[n - 1 - b]
    """
    if convention == "correlation":
        return kernel, center
    dims = tuple(range(-len(center), 0))
    return kernel.flip(dims), tuple(kernel.shape[dim] - 1 - c for dim, c in zip(dims, center, strict=True))


def border_index(index: np.ndarray, n: int, boundary: str) -> np.ndarray:
    """The pixel in [0, n) that stands for each index, however far outside it lies; n itself stands for zero."""
    if boundary == "zero":
        return np.where((index >= 0) & (index < n), index, n)
    if boundary == "replicate":
        return index.clip(0, n - 1)
    if boundary == "circular":
        return index % n
    if boundary == "reflect":  # It continues as d c b a | a b c d | d c b a.
        index = index % (2 * n)
        return np.minimum(index, 2 * n - 1 - index)
    period = max(2 * n - 2, 1)  # "mirror" continues as d c b | a b c d | c b a.
    index = index % period
    return np.minimum(index, period - index) if n > 1 else index
