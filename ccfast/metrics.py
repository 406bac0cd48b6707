"""Measures of a restored image: PSNR, SSIM and GMSD compare it with the truth, gradient and Laplacian energy do not."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["gmsd", "gradient_energy", "laplacian_energy", "psnr", "ssim"]

_DATA_RANGE = 2.0  # Images are in [-1, 1].
_WINDOW = 11  # SSIM's window: scikit-image cuts its Gaussian of standard deviation 1.5 at 3.5 standard deviations.


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, ``10 log10(4 / mean((a - b)^2))``; infinite for equal images.

    Args:
        a, b: Images (..., C, H, W) in [-1, 1]. They are not clamped.

    Returns:
        One value for every image, float64 (...).

    Raises:
        ImportError: Scikit-image is not installed.
        ValueError: The shapes differ or have fewer than three dimensions.
    """
    metrics = _skimage_metrics()
    with np.errstate(divide="ignore"):
        return _each(a, b, lambda p, q: metrics.peak_signal_noise_ratio(p, q, data_range=_DATA_RANGE))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004: Gaussian window, standard deviation 1.5), the mean over channels.

    Arguments, result and errors are those of ``psnr``. A side of fewer than 11 pixels, the window, is a ValueError too.
    """
    metrics = _skimage_metrics()
    if min(a.shape[-2:], default=0) < _WINDOW:
        raise ValueError(f"a: sides must be at least {_WINDOW}, the window of SSIM, got shape {tuple(a.shape)}")
    return _each(
        a,
        b,
        lambda p, q: metrics.structural_similarity(
            p, q, data_range=_DATA_RANGE, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        ),
    )


def gmsd(a: Tensor, b: Tensor) -> Tensor:
    """Gradient magnitude similarity deviation (Xue et al., IEEE TIP 2014), 0 for equal images; lower is better.

    It is computed as published: the luminance in [0, 255] is averaged over blocks of 2 x 2 pixels, similarities of its
    Prewitt gradients are made with c = 170, and their standard deviation over the image is the result.

    Args:
        a, b: Images (..., C, H, W) in [-1, 1], with three channels (of which the Rec. 601 luminance is taken) or one,
            and with sides of at least 4.

    Returns:
        One value for every image, float64 (...).

    Raises:
        ValueError: The shapes differ, have fewer than three dimensions, other channels or too few pixels.
    """
    if a.shape != b.shape or a.ndim < 3 or a.shape[-3] not in (1, 3) or min(a.shape[-2:]) < 4:
        raise ValueError(
            f"a, b: must have one shape (..., 1 or 3, H, W) with sides >= 4, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    c = 170.0
    m, n = (_prewitt_magnitude(functional.avg_pool2d(_luminance(x), 2)) for x in (a, b))
    similarity = (2 * m * n + c) / (m * m + n * n + c)
    return similarity.flatten(1).std(dim=1, correction=0).reshape(a.shape[:-3])


def gradient_energy(x: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels, rows and columns together: float64 (...) for (..., C, H, W)."""
    x = x.detach().double()
    return x.diff(dim=-1).square().mean(dim=(-3, -2, -1)) + x.diff(dim=-2).square().mean(dim=(-3, -2, -1))


def laplacian_energy(x: Tensor) -> Tensor:
    """Mean squared Laplacian (five points, inside the border) of images (..., C, H, W), float64 (...)."""
    x = x.double()
    inner = x[..., 1:-1, 1:-1]
    laplacian = x[..., 2:, 1:-1] + x[..., :-2, 1:-1] + x[..., 1:-1, 2:] + x[..., 1:-1, :-2] - 4.0 * inner
    return laplacian.square().mean((-3, -2, -1))


def _luminance(x: Tensor) -> Tensor:
    """The luminance of images (..., C, H, W) in [-1, 1], float64 (N, 1, H, W) in [0, 255]."""
    x = (x.detach().cpu().double().reshape(-1, *x.shape[-3:]) + 1.0) * 127.5
    weights = x.new_tensor([0.299, 0.587, 0.114] if x.shape[1] == 3 else [1.0])
    return (x * weights[:, None, None]).sum(1, keepdim=True)


def _prewitt_magnitude(x: Tensor) -> Tensor:
    kernel = x.new_tensor([[1.0, 0.0, -1.0]] * 3) / 3.0
    kernels = torch.stack([kernel, kernel.mT])[:, None]
    return functional.conv2d(functional.pad(x, (1, 1, 1, 1)), kernels).square().sum(1).sqrt()


def _each(a: Tensor, b: Tensor, metric) -> Tensor:
    if a.ndim < 3 or a.shape != b.shape:
        raise ValueError(f"a, b: must have one shape (..., C, H, W), got {tuple(a.shape)} and {tuple(b.shape)}")
    pairs = zip(*(x.detach().cpu().to(torch.float64).reshape(-1, *x.shape[-3:]).numpy() for x in (a, b)), strict=True)
    return torch.tensor([metric(p, q) for p, q in pairs], dtype=torch.float64).reshape(a.shape[:-3])


def _skimage_metrics() -> ModuleType:
    try:
        from skimage import metrics
    except ImportError as error:
        raise ImportError("psnr and ssim need scikit-image: pip install 'ccfast[demo]'") from error
    return metrics
