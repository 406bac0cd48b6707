"""The scores of restored images that all tables of quality share."""

from __future__ import annotations

from torch import Tensor

from ccfast.metrics import gmsd, psnr, ssim

__all__ = ["full_reference"]


def full_reference(restored: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """PSNR, SSIM and GMSD, each (B,), of images (B, 3, H, W) in [-1, 1] against the truth."""
    return {"psnr": psnr(restored, truth), "ssim": ssim(restored, truth), "gmsd": gmsd(restored, truth)}
