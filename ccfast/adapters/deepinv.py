"""deepinv, where images are in [0, 1], ``model(x, sigma)`` is E[x0 | x] and operators are physics with A, A_adjoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from .. import presets
from .._arguments import DEFAULT_STEPS, Seed
from ..denoiser import Denoiser
from ..operators import Operator
from ..sampler import Sampler
from ..schedules import EDM
from ._deepinv_map import PhysicsMap, buffers_of, converted, pack, parts_of
from ._deepinv_noise import alike, measured_parts, with_weights
from ._deepinv_physics import operator_of
from .k_diffusion import DenoiseAt

__all__ = ["DeepinvReconstructor", "deepinv_operator", "from_deepinv", "to_deepinv"]


class ZeroOne(nn.Module):
    """A denoiser on [-1, 1] as a model (x, sigma) to x0hat on [0, 1], where range and noise are half as large."""

    def __new__(cls, *args: Any, **kwargs: Any) -> ZeroOne:
        return super().__new__(joined(cls, "Denoiser"))

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoise = DenoiseAt(denoiser)

    def __reduce__(self) -> tuple[Any, ...]:
        return ZeroOne, (self.denoise.denoiser,)

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
    """A Denoiser as a ``deepinv.models.Denoiser``, for its samplers, whose option ``minus_one_one`` stays at True."""
    return ZeroOne(denoiser)


def from_deepinv(model: Callable[..., Tensor], sigma_min: float = 0.002, sigma_max: float = 80.0) -> Denoiser:
    """A deepinv denoiser as a Denoiser on [-1, 1], whose time is sigma.

    Args:
        model: is called as model(x, sigma) with x (B, C, H, W) in [0, 1] and sigma (B,).
        sigma_min, sigma_max: the range of sigma in its training, on the scale of [-1, 1], which is twice deepinv's.
    """
    return Denoiser(MinusOneOne(model), EDM(sigma_min, sigma_max), "sample", time_map=float)


def deepinv_operator(
    physics: Any,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    *,
    iterations: int = 50,
    tolerance: float = 0.0,
) -> Operator:
    """A linear deepinv physics as an operator on images in [-1, 1].

        Denoising, Inpainting, Demosaicing           -> kind "mask"; one mask for all images, or one for each
        BlurFFT, Blur(padding="circular")            -> kind "fourier"
        Blur with any other padding, Downsampling    -> separable, if the filter is a column times a row
        Downsampling(padding="circular")             -> kind "fourier" with any filter
        Decolorize                                   -> kind "channel"
        MRI, DynamicMRI, SinglePixelCamera, any other DecomposablePhysics
                                                     -> its own SVD, if U, V and their adjoints are one

    What remains goes by A and A_adjoint: H+ y and P x take conjugate gradients, and solvers that need singular values
    refuse noise. Where A_adjoint is missing, or not the transpose of A, automatic differentiation takes its place. An
    operator is only returned if it is A on random images; it is made from the physics as it is now.

    Images of more dimensions, (C, ..., H, W), are folded to (C ..., H, W). Measurements that are lists of tensors
    (StackedPhysics, Pansharpen) are flattened and put one after another. Singular values below 1e-5 of the largest one
    (1e-12 in float64) are in H, and are not inverted.

    Since A is linear it serves both ranges of images, but measurements change: y of images in [0, 1] becomes 2 y - A(1)
    of images in [-1, 1], and the noise doubles. ``DeepinvReconstructor`` does both.

    Args:
        physics: has ``A``, which takes (B, *shape).
        shape: the shape of one image, (C, H, W). None: ``img_size`` of the physics.
        dtype, device: of the images; the physics is copied where its tensors are others. None: those of its tensors,
            or float32 on the CPU. The operator takes others, too.
        iterations, tolerance: of conjugate gradients, as for ``LinearOperator``, where they are needed.

    Raises:
        ValueError: a physics that is not linear, or a shape that it does not take.
        TypeError: no physics, or a dtype other than float32 and float64.
    """
    if not callable(getattr(physics, "A", None)):
        raise TypeError(f"physics: must be a deepinv physics, with a method A, got {type(physics).__name__}")
    own = [part for part in buffers_of(physics) if part.is_floating_point() or part.is_complex()]
    if dtype is None:
        dtype = torch.float64 if any(part.real.dtype == torch.float64 for part in own) else torch.float32
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype: must be torch.float32 or torch.float64, got {dtype}")
    device = torch.device(device) if device is not None else own[0].device if own else torch.device("cpu")
    found = PhysicsMap(physics, shape_of(physics) if shape is None else shape, dtype, device)
    return operator_of(found, dtype, device, iterations, tolerance)


def shape_of(physics: Any) -> tuple[int, ...]:
    """The shape of one image that a physics was made for."""
    for part in (physics, *getattr(physics, "physics_list", ())):
        for name in ("img_size", "imsize"):
            found = getattr(part, name, None)
            if found is not None and len(found) >= 3:
                return tuple(int(n) for n in found)
    raise ValueError(
        f"shape: must be given for {type(physics).__name__}, which does not know it; (C, H, W), of one image"
    )


class DeepinvReconstructor(nn.Module):
    """A ``deepinv.models.Reconstructor`` that runs a sampler: called with (y, physics), it returns images in [0, 1].

    The noise is that of ``physics.noise_model``: a GaussianNoise, with one sigma or one for each image, a PoissonNoise
    or a PoissonGaussianNoise. The variance of Poisson noise is the gain times H x, which is estimated from y; elements
    of a measurement with noise of their own are weighted so that their noise is alike. Other models are refused.

    Without noise the level is that of rounding, where H has singular values that it makes matter. Every call plans a
    sampler, since the physics comes with the call.

    Args:
        denoiser: the prior. For images (C, T, H, W), such as videos, it denoises the T frames one by one.
        shape: the shape of one image. None: that of A_adjoint(y).
        options: the other arguments of ``ccfast.Sampler``. ``noise_std`` takes the place of the noise model.

    Raises:
        ValueError: the noise model or the sensor model is none of these, or ``deepinv_operator`` refuses the physics.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> DeepinvReconstructor:
        return super().__new__(joined(cls, "Reconstructor"))

    def __init__(self, denoiser: Denoiser, shape: Sequence[int] | None = None, **options: Any) -> None:
        super().__init__()
        self.denoiser, self.shape, self.options = denoiser, shape, options
        # As a submodule, the network gives this module its parameters and its device.
        self.network = denoiser.network if isinstance(denoiser.network, nn.Module) else None

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self.denoiser, self.shape, self.options)

    def forward(self, y: Any, physics: Any, seed: Seed = None, **kwargs: Any) -> Tensor:
        """Images (B, *shape) in [0, 1] from measurements y of such images.

        Args:
            y: a tensor, or a TensorList.
            physics: the physics that y was measured with; further keyword arguments update it, as in deepinv's calls.
            seed: of the sampler's call.
        """
        if kwargs:
            physics.update(**kwargs)
        first = parts_of(y)[0]
        real = torch.float64 if first.real.dtype == torch.float64 else torch.float32
        shape = tuple(shape_seen(y, physics) if self.shape is None else self.shape)
        operator = deepinv_operator(physics, shape, real, first.device)
        ones = torch.ones((operator.batch or 1, *shape), dtype=real, device=first.device)
        seen = operator.forward(ones.reshape(len(ones), *operator.shape))
        if "noise_std" in self.options:
            y, levels = pack(y), None
        else:
            with torch.no_grad():
                parts = measured_parts(physics, parts_of(y), parts_of(converted(physics, real, first.device).A(ones)))
            y = pack(type(y)([part.y for part in parts])) if not isinstance(y, Tensor) else pack(parts[0].y)
            variances = [part.packed_variance for part in parts]
            variance = variances[0] if y.ndim != 2 else torch.cat([part.flatten(1) for part in variances], 1)
            levels = 2.0 * variance.reshape(y.shape).sqrt()
        return self._restored(2.0 * y - seen, levels, operator, shape, seed)

    def _restored(
        self, y: Tensor, levels: Tensor | None, operator: Operator, shape: tuple[int, ...], seed: Seed
    ) -> Tensor:
        """Images in [0, 1] from measurements of images in [-1, 1], with the noise of every element."""
        options, of_call = dict(self.options), {}
        if levels is not None:
            own = alike(levels)
            if own is None:
                operator, y, level = with_weights(operator, y, levels)
                options = {**by_variances(self.denoiser, operator, level, options), "noise_std": level}
            else:
                own = [max(level, rounding_of(y, operator)) for level in own]
                options["noise_std"] = max(own)
                of_call["noise_std"] = own if len(set(own)) > 1 else None
        denoiser = frame_by_frame(self.denoiser, shape) if len(shape) > 3 else self.denoiser
        x = Sampler(denoiser, operator, **options)(y, seed=seed, **of_call)
        return ((x + 1.0) / 2.0).reshape(len(x), *shape)


def by_variances(denoiser: Denoiser, operator: Operator, level: float, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a sampler, with the solver for weighted measurements that hide nothing, unless one is given.

    Presets are found on noise that is alike in all elements, and on a ``SoftMask`` of very different weights ``DPIR``
    restores more, unless there is something to fill in.
    """
    taken = any(options.get(name) is not None for name in ("solver", "times", "start", "end"))
    if taken or operator.kind != "mask" or not bool((operator.singular_values > 0).all()):
        return options
    steps = options.get("steps") or DEFAULT_STEPS
    times = presets.by_adjoints_times(denoiser.schedule, steps, level)
    return {**options, "solver": presets.BY_ADJOINTS, "times": times, "steps": None}


def rounding_of(y: Tensor, operator: Operator) -> float:
    """The noise that rounding makes of y, where singular values that lie far apart make it matter; otherwise 0."""
    if operator.kind not in ("fourier", "separable"):
        return 0.0
    return ROUNDINGS * torch.finfo(y.dtype).eps * float(y.square().mean().sqrt())


ROUNDINGS = 1.0
"""Times eps and the root mean square of y: about the rounding of a Fourier transform, and of what made y."""


class FrameByFrame(nn.Module):
    """A network for images (B, C, H, W) on states (B, C T, H, W) of T frames, in deepinv's order (C, T)."""

    def __init__(self, network: Callable[..., Tensor], frames: int) -> None:
        super().__init__()
        self.network, self.frames = network, frames

    def forward(self, x: Tensor, t: Tensor, **kwargs: Any) -> Tensor:
        count, channels, *sides = x.shape
        split = x.reshape(count, channels // self.frames, self.frames, *sides).transpose(1, 2).flatten(0, 1)
        output = self.network(split, t.repeat_interleave(self.frames) if t.ndim else t, **kwargs)
        return output.reshape(count, self.frames, *output.shape[1:]).transpose(1, 2).flatten(1, 2)


def frame_by_frame(denoiser: Denoiser, shape: tuple[int, ...]) -> Denoiser:
    """A denoiser of images as one of videos of this shape, (C, ..., H, W)."""
    network = FrameByFrame(denoiser.network, math.prod(shape[1:-2]))
    return Denoiser(
        network,
        denoiser.schedule,
        denoiser.prediction,
        denoiser.time_map,
        denoiser.name,
        denoiser.network_kwargs,
        denoiser.clip,
    )


def shape_seen(y: Any, physics: Any) -> tuple[int, ...]:
    """The shape of one image, from A_adjoint of a measurement."""
    try:
        with torch.no_grad():
            return tuple(physics.A_adjoint(y).shape[1:])
    except (AttributeError, RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"shape: must be given for {type(physics).__name__}, whose A_adjoint raises {type(error).__name__}: {error}"
        ) from error


def _made(denoiser: Denoiser, shape: Sequence[int] | None, options: dict[str, Any]) -> DeepinvReconstructor:
    return DeepinvReconstructor(denoiser, shape, **options)


@lru_cache
def joined(own: type[nn.Module], name: str) -> Any:
    """A class of ours that is one of ``deepinv.models``, too; the class itself where deepinv is not installed."""
    if find_spec("deepinv") is None:
        return own
    base = getattr(import_module("deepinv.models"), name)
    return own if issubclass(own, base) else type(own.__name__, (own, base), {"__module__": own.__module__})
