"""The noise models of deepinv as a variance of every element of a measurement."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..operators import Operator, SoftMask
from ._deepinv_operators import Weighted

__all__ = ["Measured", "alike", "measured_parts", "with_weights"]

WINDOW = 5
"""The side of the square in which the mean of a measurement is taken for the variance of its Poisson noise."""


COUNTS = 100.0
"""The counts in a window at which its mean has as much weight as that of the whole measurement."""


class Measured(NamedTuple):
    """One tensor of a measurement.

    Attributes:
        y: A x and noise of mean zero.
        variance: of the noise of every real number in y, broadcastable to y.
    """

    y: Tensor
    variance: Tensor

    @property
    def packed_variance(self) -> Tensor:
        """The variance of every element of ``pack(y)``."""
        whole = self.variance.expand(self.y.shape)
        return whole[..., None].expand(*self.y.shape, 2) if self.y.is_complex() else whole


def measured_parts(physics: Any, y: list[Tensor], ones: list[Tensor]) -> list[Measured]:
    """The tensors of a measurement and the variances of their noise.

    Args:
        physics: has ``noise_model``, or parts that have one.
        y: the tensors of the measurement.
        ones: those of an image of ones.

    Raises:
        ValueError: a noise model whose variance is not known, named; or a sensor that is not linear.
    """
    own = getattr(physics, "physics_list", None)
    parts = own if own is not None and hasattr(physics, "reduction") else [physics] * len(y)
    return [one_part(part, tensor, reach) for part, tensor, reach in zip(parts, y, ones, strict=True)]


def one_part(physics: Any, y: Tensor, ones: Tensor) -> Measured:
    model = getattr(physics, "noise_model", None)
    check_sensor(physics, y)
    name = next((kind.__name__ for kind in type(model).__mro__ if "forward" in vars(kind)), type(model).__name__)
    nothing = torch.zeros((), dtype=y.real.dtype, device=y.device)
    if model is None or name == "ZeroNoise":
        return Measured(y, nothing)
    if name == "GaussianNoise":
        return Measured(y, of_images("sigma", model.sigma, y).square() / (2.0 if y.is_complex() else 1.0))
    if name in ("PoissonNoise", "PoissonGaussianNoise") and not y.is_complex():
        gain = of_images("gain", model.gain, y)
        y = y if bool(getattr(model, "normalize", True)) else y * gain
        variance = gain * expected(y, ones.to(y), gain)
        return Measured(y, variance + of_images("sigma", model.sigma, y).square() if "Gauss" in name else variance)
    raise ValueError(
        f"noise_model: must be ZeroNoise, GaussianNoise, PoissonNoise or PoissonGaussianNoise, got {name}; the option "
        "noise_std, twice the standard deviation on images in [0, 1], takes its place"
    )


def check_sensor(physics: Any, y: Tensor) -> None:
    """Raise ValueError if the sensor model changes values from -2 to 2."""
    sensor = getattr(physics, "sensor_model", None)
    if sensor is None:
        return
    values = torch.linspace(-2.0, 2.0, 64, dtype=y.real.dtype, device=y.device).reshape(1, 1, 8, 8)
    try:
        same = bool((sensor(values) == values).all())
    except (RuntimeError, ValueError, TypeError, IndexError):
        same = False
    if not same:
        raise ValueError(
            f"sensor_model: must be the identity, got {getattr(sensor, '__name__', type(sensor).__name__)}, which "
            f"changes values between -2 and 2"
        )


def of_images(name: str, value: Any, y: Tensor) -> Tensor:
    """A number, or one for each image, that broadcasts to y."""
    found = torch.as_tensor(value).detach().to(dtype=y.real.dtype, device=y.device)
    if found.numel() not in (1, len(y)):
        raise ValueError(
            f"noise_model: {name} must be one number, or one for each of {len(y)} images, got shape "
            f"{tuple(found.shape)}"
        )
    if not bool((found >= 0).all()) or not bool(found.isfinite().all()):
        raise ValueError(f"noise_model: {name} must be finite and >= 0, got {found.flatten().tolist()}")
    return found.reshape(-1, *(1 for _ in y.shape[1:]))


def expected(y: Tensor, ones: Tensor, gain: Tensor) -> Tensor:
    """An estimate of H x >= 0 that varies less than y does with its noise.

    Where the image is constant H x is its value times H 1. The value is the mean of y/H 1 in a window of n counts and
    that of the whole measurement, with the weights n and ``COUNTS``: an estimate that followed the noise would give
    more weight to what happens to be small.
    """
    if y.ndim != 4 or min(y.shape[-2:]) < WINDOW:
        return y.maximum(gain)

    def mean(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values, WINDOW, 1, WINDOW // 2, count_include_pad=False)

    near, reach = mean(y).clamp(min=0.0), mean(ones)
    counts = near * WINDOW**2 / gain.clamp(min=torch.finfo(y.dtype).tiny)
    sides = tuple(range(1, y.ndim))
    whole = (y.sum(sides, keepdim=True) / ones.expand(y.shape).sum(sides, keepdim=True)).clamp(min=0.0)
    value = (counts * near / reach.where(reach > 0, 1.0) + COUNTS * whole) / (counts + COUNTS)
    least = gain / WINDOW**2
    return torch.where(reach > 0, ones * value, least).maximum(least)


# ------------------------------------------------------------------------------------ what a sampler takes
LEAST = 0.01
"""The smallest standard deviation of an element, relative to the root mean square of all."""


def alike(levels: Tensor) -> list[float] | None:
    """The level of each image, from the levels of its elements, (B, ...); None where those of an image differ."""
    rows = levels.flatten(1)
    low, high = rows.amin(1), rows.amax(1)
    return high.tolist() if bool((high - low <= 1e-6 * high).all()) else None


def with_weights(operator: Operator, y: Tensor, levels: Tensor) -> tuple[Operator, Tensor, float]:
    """diag(w) H, w y and one level of noise: with w = level/levels all elements have the noise of that level.

    On a mask that is a ``SoftMask``, with singular values, and the level is the root mean square of what is observed.
    On any other operator it is known by H and H^T, and the level is that of the mean information, 1/level^2.
    """
    if operator.kind == "mask":
        s = operator.singular_values
        seen = levels[(s > 0).to(levels.device).expand(levels.shape)]
        level = float(seen.double().square().mean().sqrt())
        weights = level / levels.clamp(min=LEAST * level)
        return SoftMask(s * weights.to(device="cpu", dtype=torch.float64), operator.shape), y * weights, level
    least = LEAST * float(levels.double().square().mean().sqrt())
    levels = levels.clamp(min=least)
    level = float(levels.double().square().reciprocal().mean().rsqrt())
    weights = level / levels
    return Weighted(operator, weights), y * weights, level
