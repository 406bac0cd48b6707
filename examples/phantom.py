"""The parts that the examples share: test images, a prior with a closed form, and PSNR."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import ccfast

ELLIPSES = [
    (1.0, 0.0, 0.0, 0.69, 0.92, 0),
    (-0.8, 0.0, -0.0184, 0.6624, 0.874, 0),
    (-0.2, 0.22, 0.0, 0.11, 0.31, -18),
    (-0.2, -0.22, 0.0, 0.16, 0.41, 18),
    (0.1, 0.0, 0.35, 0.21, 0.25, 0),
    (0.1, 0.0, 0.1, 0.046, 0.046, 0),
    (0.1, 0.0, -0.1, 0.046, 0.046, 0),
    (0.1, -0.08, -0.605, 0.046, 0.023, 0),
    (0.1, 0.06, -0.605, 0.023, 0.046, 0),
]
"""The ellipses whose sum is a head, as (value, centre x, centre y, half axis x, half axis y, angle in degrees).

The head is that of Shepp and Logan, IEEE Trans. Nucl. Sci. 21, 1974, with the contrast of Toft's version."""


def heads(count: int, side: int, seed: int) -> Tensor:
    """Heads of different people, float32 (count, side, side) in about [0, 1], whose ellipses vary a little."""
    generator = torch.Generator().manual_seed(seed)
    axis = (torch.arange(side) + 0.5) * 2 / side - 1
    y, x = torch.meshgrid(-axis, axis, indexing="ij")
    images = torch.zeros(count, side, side)
    for value, cx, cy, a, b, degrees in ELLIPSES:
        change = torch.randn(6, count, 1, 1, generator=generator)
        cx, cy, a, b = (
            cx + 0.02 * change[0],
            cy + 0.02 * change[1],
            a * (1 + 0.05 * change[2]),
            b * (1 + 0.05 * change[3]),
        )
        angle = (degrees + 5 * change[4]) * (math.pi / 180)
        u = (x - cx) * angle.cos() + (y - cy) * angle.sin()
        v = (y - cy) * angle.cos() - (x - cx) * angle.sin()
        distance = (1 - ((u / a) ** 2 + (v / b) ** 2).sqrt()) * a.minimum(b)  # This is about the distance to the edge.
        images += value * (1 + 0.1 * change[5]) * torch.sigmoid(distance * 2 * side)
    return images


def fitted_prior(images: Tensor) -> ccfast.Denoiser:
    """The Gaussian with the mean and covariance of images (count, C, H, W), as an exact denoiser (VP, predicts x0).

    With principal components v_k of variance l_k, and l_0 that of all other directions,

        E[x0 | x] = m + mu sum_k l_k / (mu^2 l_k + sigma^2) v_k <v_k, x - mu m>,

    which is a network in closed form. Half of the images choose the components, the other half give l_k and l_0.
    """
    schedule = ccfast.schedules.VP()
    flat = images.double().flatten(1)
    mean, half = flat.mean(0), len(flat) // 2
    v = torch.linalg.svd(flat[:half] - mean, full_matrices=False)[2][: half // 2].mT
    rest = flat[half:] - mean
    within = rest @ v
    variance = within.square().mean(0)
    floor = (rest.square().sum() - within.square().sum()) / rest.numel()

    def network(x: Tensor, t: Tensor) -> Tensor:
        mu, sigma = (torch.as_tensor(value(t.double().numpy()))[:, None] for value in (schedule.mean, schedule.std))
        gain, other = (mu * s / (mu**2 * s + sigma**2) for s in (variance, floor))
        away = x.flatten(1) - (mu * mean).to(x)
        result = mean.to(x) + other.to(x) * away + ((away @ v.to(x)) * (gain - other).to(x)) @ v.mT.to(x)
        return result.reshape(x.shape)

    return ccfast.Denoiser(network, schedule, "sample", time_map=float, name="heads")


def psnr(x: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, the peak being that of the truth."""
    return 10 * math.log10(float(truth.abs().max() ** 2 / (x - truth).square().mean()))
