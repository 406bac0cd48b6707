"""How near a restored image is to the truth: PSNR and SSIM, by scikit-image."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
from torch import Tensor

__all__ = ["psnr", "ssim"]

_DATA_RANGE = 2.0  # images are in [-1, 1]
_WINDOW = 11  # of SSIM: scikit-image cuts its Gaussian of standard deviation 1.5 at 3.5 standard deviations


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, ``10 log10(4 / mean((a - b)^2))``; infinite for equal images.

    Args:
        a, b: (..., C, H, W) in [-1, 1]; they are not clamped.

    Returns:
        float64 (...), one value an image.

    Raises:
        ImportError: scikit-image is not installed.
        ValueError: the shapes differ or have fewer than three dimensions.
    """
    metrics = _skimage_metrics()
    with np.errstate(divide="ignore"):
        return _each(a, b, lambda p, q: metrics.peak_signal_noise_ratio(p, q, data_range=_DATA_RANGE))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004: Gaussian window, standard deviation 1.5), the mean over channels.

    Arguments, result and errors as ``psnr``; also ValueError for a side under 11 pixels, the window.
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
