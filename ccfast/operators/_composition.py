"""Products of two operators that have a thin SVD again; what ``Compose`` looks up."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ._channel_spatial import ChannelSpatial
from ._diagonal import Diagonal
from .average_pooling import AveragePooling
from .axis import CosineAxis, Factor, TransformAxis
from .denoising import Denoising
from .fourier import FourierBlur, impulse_kernel
from .fourier_downsampling import FourierDownsampling
from .grayscale import Grayscale
from .inpainting import Inpainting
from .operator import Operator
from .separable import Separable, correlation_axis, thin_svd
from .soft_mask import SoftMask

__all__ = ["product", "with_channels"]

Spectral = FourierBlur | FourierDownsampling | AveragePooling
"""These are diagonal in the Fourier basis, but for aliasing."""


def product(first: Operator, then: Operator, cutoff: float) -> Operator | None:
    """``then`` after ``first`` as one operator with a thin SVD, or None."""
    if isinstance(first, Denoising) or isinstance(then, Denoising):
        return then if isinstance(first, Denoising) else first
    if isinstance(first, Diagonal) and isinstance(then, Diagonal):
        return masks(first, then)
    if isinstance(first, AveragePooling) and isinstance(then, AveragePooling):
        return AveragePooling(first.shape, first.factor * then.factor)
    if isinstance(first, Separable | AveragePooling) and isinstance(then, Separable | AveragePooling):
        return separable_product(first, then, cutoff)
    if isinstance(first, Spectral) and isinstance(then, Spectral):
        return fourier_product(first, then, cutoff)
    return channel_product(first, then, cutoff)


def masks(first: Diagonal, then: Diagonal) -> Diagonal:
    # A mask for all images broadcasts against one for each image.
    values = first.singular_values * then.singular_values
    member = Inpainting if ((values == 0) | (values == 1)).all() else SoftMask
    return member(values, None if first.any_channels else first.shape)


def separable_product(first: Separable | AveragePooling, then: Separable | AveragePooling, cutoff: float) -> Separable:
    axes: list[Factor | TransformAxis] = []
    for a, b in zip(axes_of(first), axes_of(then), strict=True):
        if isinstance(a, CosineAxis) and isinstance(b, CosineAxis):
            axes.append(a.then("Compose", b, cutoff))
        else:
            axes.append(factor_product(a, b, cutoff))
    return Separable(first.shape, axes)


def factor_product(first: Factor | TransformAxis, then: Factor | TransformAxis, cutoff: float) -> Factor:
    a, b = ((factor.u * factor.s) @ factor.v.mT for factor in map(as_factor, (first, then)))
    rounding = float(a.norm() * b.norm()) * torch.finfo(torch.float64).eps
    return thin_svd("Compose", (b @ a).numpy(), max(cutoff, rounding))


def as_factor(axis: Factor | TransformAxis) -> Factor:
    return axis if isinstance(axis, Factor) else axis.factor


def axes_of(operator: Separable | AveragePooling) -> Sequence[Factor | TransformAxis]:
    """The 1-D SVD of each axis. Pooling is a correlation with a box, whose stride is the length of the box."""
    if isinstance(operator, Separable):
        return operator.axes
    box = np.full(operator.factor, 1 / operator.factor).tobytes()
    return [correlation_axis("Compose", box, n, 0, operator.factor, "reflect", 0.0) for n in operator.shape[1:]]


def spectrum(operator: Spectral) -> tuple[Tensor, int]:
    """k_hat (1 or B, 1, *sides) and the factor of a circular blur with decimation; pooling is one with a box."""
    sides = operator.shape[1:]
    if isinstance(operator, FourierDownsampling):
        return operator.response.reshape(-1, 1, *sides), operator.factor
    if isinstance(operator, FourierBlur):
        return operator.response, 1
    taps = torch.zeros(2 * operator.factor - 1, dtype=torch.float64)
    # The tile is the pixel itself and those after it.
    taps[operator.factor - 1 :] = 1 / operator.factor
    kernel = taps if len(sides) == 1 else torch.outer(taps, taps)
    pooling = FourierDownsampling(operator.shape, kernel, operator.factor, 0.0)
    return pooling.response.reshape(1, 1, *sides), pooling.factor


def fourier_product(first: Spectral, then: Spectral, cutoff: float) -> Operator:
    """A blur after decimation is one with the kernel spread out before it, of a spectrum that repeats itself."""
    (a, factor), (b, other) = spectrum(first), spectrum(then)
    response = a * b.repeat(1, 1, *(big // small for big, small in zip(a.shape[2:], b.shape[2:], strict=True)))
    largest = response.abs().flatten(1).amax(1).min()
    if largest < max(cutoff, torch.finfo(torch.float64).tiny):
        raise ValueError(
            f"Compose: cutoff must leave a frequency of the product, got {cutoff} with a largest |k_hat| of "
            f"{largest:.3g}"
        )
    kernel = impulse_kernel(response)
    kernel = kernel if first.batch or then.batch else kernel[0]
    if factor * other == 1:
        return FourierBlur(first.shape, kernel, cutoff, normalize=False)
    return FourierDownsampling(first.shape, kernel, factor * other, cutoff, normalize=False)


def channel_product(first: Operator, then: Operator, cutoff: float) -> Operator | None:
    """The product of a mean over the channels and of what acts on all of them alike, in any order, or None."""
    if isinstance(first, Grayscale) and alike(then):
        return ChannelSpatial(first.shape, first.weights, then)
    if isinstance(then, Grayscale) and alike(first):
        return ChannelSpatial(first.shape, then.weights, with_channels(first, 1))
    if isinstance(first, ChannelSpatial) and alike(then):
        spatial, weights = product(first.spatial, then, cutoff), first.channel.weights
    elif isinstance(then, ChannelSpatial) and alike(first):
        spatial, weights = product(with_channels(first, 1), then.spatial, cutoff), then.channel.weights
    else:
        return None
    return None if spatial is None else ChannelSpatial(first.shape, weights, spatial)


def alike(operator: Operator) -> bool:
    """Whether an operator does the same to every channel, so that one for another number of channels can be made."""
    if isinstance(operator, Diagonal):
        return operator.singular_values.shape[-len(operator.shape)] == 1
    return isinstance(operator, Separable | Spectral)


def with_channels(operator: Operator, channels: int) -> Operator:
    """An operator that is alike for all channels, for this number of them."""
    other = copy.copy(operator)
    other.shape = (channels, *operator.shape[1:])
    other.measurement_shape = (channels, *operator.measurement_shape[1:])
    other.any_channels, other._cache = False, {}
    return other
