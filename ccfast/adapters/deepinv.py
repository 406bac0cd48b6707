"""deepinv, where images are in [0, 1], ``model(x, sigma)`` is E[x0 | x] and operators are physics with A, A_adjoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..denoiser import Denoiser
from ..operators import Inpainting, LinearOperator, Operator
from ..sampler import Sampler
from ..schedules import EDM
from .k_diffusion import DenoiseAt

__all__ = ["DeepinvReconstructor", "deepinv_operator", "from_deepinv", "to_deepinv"]


class ZeroOne(nn.Module):
    """A denoiser on [-1, 1] as a model (x, sigma) to x0hat on [0, 1], where range and noise are half as large."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoise = DenoiseAt(denoiser)

    def forward(self, x: Tensor, sigma: Tensor | float, **kwargs: Any) -> Tensor:
        return (self.denoise(2.0 * x - 1.0, 2.0 * torch.as_tensor(sigma), **kwargs) + 1.0) / 2.0


class MinusOneOne(nn.Module):
    """A model (x, sigma) to x0hat on [0, 1] as one on [-1, 1]."""

    def __init__(self, model: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return 2.0 * self.model((x + 1.0) / 2.0, sigma / 2.0) - 1.0


def to_deepinv(denoiser: Denoiser) -> nn.Module:
    """A Denoiser as the ``denoiser`` argument of deepinv's samplers, whose option ``minus_one_one`` stays at True."""
    return ZeroOne(denoiser)


def from_deepinv(model: Callable[..., Tensor], sigma_min: float = 0.002, sigma_max: float = 80.0) -> Denoiser:
    """A deepinv denoiser as a Denoiser on [-1, 1], whose time is sigma.

    Args:
        model: is called as model(x, sigma) with x (B, C, H, W) in [0, 1] and sigma (B,).
        sigma_min, sigma_max: the range of sigma in its training, on the scale of [-1, 1], which is twice deepinv's.
    """
    return Denoiser(MinusOneOne(model), EDM(sigma_min, sigma_max), "sample", time_map=float)


def deepinv_operator(physics: Any, shape: tuple[int, ...], iterations: int = 50) -> Operator:
    """A linear deepinv physics as an operator on images in [-1, 1].

    An ``Inpainting`` with a mask of zeros and ones becomes ours, with exact projections. Any other physics is known by
    A and A_adjoint alone, so that its pseudo-inverse takes conjugate gradients. Since A is linear it serves both ranges
    of images, but measurements change: y of images in [0, 1] becomes 2 y - A(1) of images in [-1, 1], and the noise
    doubles. ``DeepinvReconstructor`` does both.

    Args:
        physics: has ``A`` and ``A_adjoint``, which take (B, *shape) and (B, *measurement_shape).
        shape: the shape of one image, (C, H, W).
        iterations: the number of conjugate gradient iterations.
    """
    mask = getattr(physics, "mask", None)
    if type(physics).__name__ == "Inpainting" and mask is not None and bool(((mask == 0) | (mask == 1)).all()):
        return Inpainting((mask[0] if mask.ndim > len(shape) else mask).expand(shape) > 0)
    return LinearOperator(lambda x: physics.A(x), lambda y: physics.A_adjoint(y), shape, iterations=iterations)


class DeepinvReconstructor(nn.Module):
    """A sampler that is called as a ``deepinv.models.Reconstructor``, with (y, physics), and returns images in [0, 1].

    The noise level is ``physics.noise_model.sigma``, or 0 where there is none. Every call plans a sampler, since the
    physics comes with the call.

    Args:
        denoiser: the prior.
        shape: the shape of one image, (C, H, W).
        options: the other arguments of ``ccfast.Sampler``.
    """

    def __init__(self, denoiser: Denoiser, shape: tuple[int, ...], **options: Any) -> None:
        super().__init__()
        self.denoiser, self.shape, self.options = denoiser, shape, options

    def forward(self, y: Tensor, physics: Any, seed: int | None = None) -> Tensor:
        """Images (B, *shape) in [0, 1] from measurements y of such images."""
        operator = deepinv_operator(physics, self.shape)
        noise = float(getattr(getattr(physics, "noise_model", None), "sigma", 0.0))
        sampler = Sampler(self.denoiser, operator, noise_std=2.0 * noise, **self.options)
        ones = physics.A(torch.ones(1, *self.shape, dtype=y.dtype, device=y.device))
        return (sampler(2.0 * y - ones, seed=seed) + 1.0) / 2.0
