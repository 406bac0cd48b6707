"""The physics of deepinv as operators: those with a known SVD exactly, the others by H and H^T."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..operators import Blur, Denoising, FourierBlur, FourierDownsampling, Grayscale, Inpainting, Operator, SoftMask
from ..operators.blur import outer_factors
from ..operators.separable import Separable, correlation_matrix, thin_svd
from ._deepinv_map import ROUNDING, PhysicsMap, buffers_of, fraction_of
from ._deepinv_operators import PhysicsOperator, PhysicsSVD, inverted_above

__all__ = ["operator_of"]

BOUNDARIES = {
    "valid": "valid",
    "circular": "circular",
    "replicate": "replicate",
    "reflect": "mirror",
    "constant": "zero",
    "zeros": "zero",
}
"""The names of deepinv's paddings and ours; its "reflect" is torch's, which does not repeat the edge."""

NEGLIGIBLE = {torch.float32: 1e-5, torch.float64: 1e-12}
"""Singular values below this part of the largest one are not inverted, since rounding hides what they measure."""


SINGLE = 1e-8
"""By how much a filter in float32 is no column times a row, where it was made as one: its rounding, averaged."""

Candidate = Callable[[], Operator]


def operator_of(
    found: PhysicsMap, dtype: torch.dtype, device: torch.device, iterations: int, tolerance: float
) -> Operator:
    """The first candidate that is the same map as the physics on random images, else one by conjugate gradients."""
    like = torch.empty(0, dtype=dtype, device=device)
    x = found.random(like, 4)
    y = found.forward(x)
    single = any(part.real.dtype == torch.float32 for part in buffers_of(found.physics))
    within = max(ROUNDING * torch.finfo(dtype).eps, SINGLE if single else 0.0)
    for candidate in candidates(found, like, iterations, tolerance):
        try:
            operator = candidate()
        except (ValueError, TypeError, RuntimeError, AttributeError, NotImplementedError, IndexError):
            continue  # The physics is of a kind that the candidate does not know, such as a filter that is not set.
        if operator.measurement_shape != found.measurement_shape or operator.batch not in (None, found.batch):
            continue
        if fraction_of(operator.forward(x) - y, y) < within:
            return operator
    return PhysicsOperator(found, iterations, tolerance)


def candidates(found: PhysicsMap, like: Tensor, iterations: int, tolerance: float) -> Iterator[Candidate]:
    """The exact operators that a physics of these classes may be."""
    physics, shape, negligible = found.physics, found.shape, NEGLIGIBLE[like.dtype]
    names = {kind.__name__ for kind in type(physics).__mro__}
    if "Denoising" in names:
        yield partial(Denoising, shape)
    if "Inpainting" in names:
        yield partial(masked, physics, found.image_shape, shape)
    if "Decolorize" in names:
        yield lambda: Grayscale(shape, numbers(physics.srf).flatten())
    if "BlurFFT" in names:
        yield partial(blurred_by_spectrum, physics, shape, negligible, torch.finfo(like.dtype).eps)
    if "Blur" in names:
        yield partial(blurred, physics, shape, negligible, iterations, tolerance)
    if "Downsampling" in names:
        yield partial(downsampled, physics, shape, negligible)
    if all(hasattr(physics, name) for name in ("U", "U_adjoint", "V", "V_adjoint", "mask")):
        yield partial(decomposed, found, found.physics, negligible, like)
    if "Blur" in names and getattr(physics, "padding", "") == "circular":
        yield partial(decomposed, found, spectral_twin(physics, shape), negligible, like)


def numbers(value: Any) -> Tensor:
    return torch.as_tensor(value).detach().cpu().to(torch.float64)


def masked(physics: Any, image_shape: tuple[int, ...], shape: tuple[int, ...]) -> Operator:
    """The mask of an Inpainting for all images, or one for each."""
    mask = numbers(physics.mask)
    count = len(mask) if mask.ndim > len(image_shape) else 1
    mask = mask.expand(count, *image_shape).reshape(count, *shape)
    member = Inpainting if bool(((mask == 0) | (mask == 1)).all()) else SoftMask
    return member(mask if count > 1 else mask[0], shape)


def kernel_of(physics: Any) -> Tensor:
    """The kernel of a filter (b, c, kh, kw) that is one for all channels: (kh, kw), or (b, kh, kw)."""
    taps = physics.filter.detach().cpu()  # Its dtype says how a column times a row was rounded.
    if taps.ndim != 4 or not bool((taps == taps[:, :1]).all()):
        raise ValueError(f"filter: must be one for all channels, got shape {tuple(taps.shape)}")
    return taps[:, 0] if len(taps) > 1 else taps[0, 0]


def blurred(physics: Any, shape: tuple[int, ...], negligible: float, iterations: int, tolerance: float) -> Operator:
    kernel, boundary = kernel_of(physics), BOUNDARIES[physics.padding.lower()]
    if boundary == "circular":
        return circular(shape, kernel, negligible)
    options = {"convention": "convolution", "normalize": False, "iterations": iterations, "tolerance": tolerance}
    return inverted_above(Blur(shape, kernel, boundary, 0.0, **options), negligible)


def circular(shape: tuple[int, ...], kernel: Tensor, negligible: float, factor: int = 1) -> Operator:
    options: dict[str, Any] = {"convention": "convolution", "normalize": False}
    if factor == 1:
        return inverted_above(FourierBlur(shape, kernel, 0.0, **options), negligible, kernel)
    return inverted_above(FourierDownsampling(shape, kernel, factor, 0.0, **options), negligible, kernel)


def blurred_by_spectrum(physics: Any, shape: tuple[int, ...], negligible: float, rounding: float) -> Operator:
    """A BlurFFT, from the spectrum that it multiplies by, |k_hat| in ``mask`` and the phase in ``angle``."""
    response = numbers(physics.mask)[..., 0] * physics.angle.detach().cpu()
    if float((response - response[:, :1]).abs().max()) > 8 * rounding * float(response.abs().max()):
        raise ValueError("filter: must be one for all channels")
    kernel = torch.fft.irfft2(response[:, 0].to(torch.complex128), s=shape[1:])
    # The kernel is an impulse response with its centre at index 0, which the convention expects at n // 2.
    kernel = kernel.roll(tuple(n // 2 for n in shape[1:]), (1, 2))
    return circular(shape, kernel if len(kernel) > 1 else kernel[0], negligible)


def downsampled(physics: Any, shape: tuple[int, ...], negligible: float) -> Operator:
    """A blur, or none, and then every factor-th pixel."""
    factor, sides = int(physics.factor), shape[1:]
    if physics.filter is None:
        return Separable(shape, [thin_svd("Downsampling", np.eye(n)[::factor], 0.0) for n in sides])
    kernel, boundary = kernel_of(physics), BOUNDARIES[physics.padding.lower()]
    axes = outer_factors(kernel.double(), float(torch.finfo(kernel.dtype).eps)) if kernel.ndim == 2 else None
    if axes is None:
        if boundary != "circular":
            raise ValueError(f"filter: must be a column times a row with padding {physics.padding!r}")
        return circular(shape, kernel, negligible, factor)
    factors = []
    for n, taps in zip(sides, axes, strict=True):
        flipped, center = taps.flip(0).numpy(), len(taps) - 1 - len(taps) // 2
        if boundary == "valid" and len(flipped) > n:
            raise ValueError("filter: must fit into the image")
        matrix = correlation_matrix(flipped, n, 0 if boundary == "valid" else center, 1, boundary)
        factors.append(thin_svd("Downsampling", matrix[::factor], 0.0))
    return inverted_above(Separable(shape, factors), negligible)


def spectral_twin(physics: Any, shape: tuple[int, ...]) -> Any:
    """The BlurFFT with the filter of a circular Blur; deepinv is there, since the physics is one of its own."""
    return import_module("deepinv.physics").BlurFFT(img_size=shape, filter=physics.filter.detach())


def decomposed(found: PhysicsMap, physics: Any, negligible: float, like: Tensor) -> Operator:
    """The SVD of a physics, if its transforms are those of one."""
    operator = PhysicsSVD(found, physics, negligible, like)
    x, z = found.random(like, 6), found.random(like, 7)
    y = operator.forward(x)
    kept = operator.pinv(y)
    inner = float((operator.project(z).double() * x.double()).sum()), float((z.double() * kept.double()).sum())
    wrong = (
        fraction_of(operator.forward(kept) - y, y),  # H H+ H = H
        fraction_of(operator.project(x) - kept, kept),  # P = H+ H
        fraction_of(operator.adjoint(y) - found.adjoint(y), y),  # H^T = V S U^T
        fraction_of(operator.project(kept) - kept, kept),  # P P = P
        abs(inner[0] - inner[1]) / float(z.double().norm() * x.double().norm()),  # P = P^T
    )
    worst = max(wrong)
    if not worst < ROUNDING * torch.finfo(like.dtype).eps:
        raise ValueError(f"physics: must have the transforms of an SVD, got {found.name}, off by {worst:.2g}")
    return operator
