"""The scores of restored images, and of a prior as a denoiser."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import ccfast
from bench.full_reference import full_reference
from ccfast.metrics import laplacian_energy, psnr

__all__ = ["NOISE_LEVELS", "RESULTS", "TASKS", "denoising", "scores"]

RESULTS = Path(__file__).parents[1] / "results"
TASKS = ("inpaint:0.5", "box:0.25", "pool:4", "bicubic:4", "blur:3.0")
NOISE_LEVELS = (5, 15, 25, 50, 100)
"""Standard deviations of the noise on the scale of grey levels, 0 to 255."""


def scores(restored: Tensor, truth: Tensor) -> dict[str, float]:
    """The scores of restored images, clamped to [-1, 1], as means over the images.

    "laplacian" is the Laplacian energy as a share of the truth's.
    """
    restored = restored.clamp(-1, 1)
    values = full_reference(restored, truth) | {"laplacian": laplacian_energy(restored) / laplacian_energy(truth)}
    return {name: round(float(value.mean()), 4) for name, value in values.items()}


def denoising(denoiser: ccfast.Denoiser, truth: Tensor) -> dict[str, float]:
    """The PSNR of x0hat for every level of ``NOISE_LEVELS``, at the time whose sigma/mu is that noise on [-1, 1]."""
    schedule, found = denoiser.schedule, {}
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    for level in NOISE_LEVELS:
        std = level / 127.5
        t = float(schedule.time(std))
        mu = float(schedule.mean(t))
        with torch.no_grad():
            x0hat = denoiser(mu * (truth + std * noise), t).clamp(-1, 1)
        found[str(level)] = round(float(psnr(x0hat, truth).mean()), 3)
    return found
