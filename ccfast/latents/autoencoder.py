"""The autoencoder of a latent model as the samplers call it: in its own dtype, in tiles, and never changed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from ..operators.operator import is_integer
from .windows import applied, gradient_of, pulled, windows

__all__ = ["Autoencoder", "Identity"]

PROBE = 64
"""The side of the image that shows how many pixels a latent stands for."""

Cotangent = Callable[[Tensor], Tensor]


class Identity:
    """No autoencoder: latents are images."""

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor) -> Tensor:
        return z

    def pull_encoder(self, x: Tensor, cotangent: Cotangent) -> Tensor:
        return cotangent(x)

    def pull_decoder(self, z: Tensor, cotangent: Cotangent) -> Tensor:
        return cotangent(z)


class Autoencoder:
    """An autoencoder between images in [-1, 1] and the latents that a network was trained with.

        z = scaling (vae.encode(x) - shift),        x = vae.decode(z/scaling + shift)

    The mode of a distribution over latents is taken. Half precision is the VAE's own affair: tensors are cast to the
    dtype of its weights and back; float16 weights with ``force_upcast`` in the config compute in float32, as in
    diffusers. Sides that no whole number of latents covers are continued by their last pixels, and cropped again.

    Args:
        vae: It has ``encode`` and ``decode``, which return tensors or what diffusers returns.
        scaling, shift: Numbers, or one for every channel of the latents. None: what the config of the VAE says
            (``scaling_factor``, ``shift_factor``, ``latents_mean``, ``latents_std``), or else 1 and 0.
        tile: The side in latents of overlapping tiles, in which images are encoded and decoded; None for whole images.
            Derivatives are taken tile by tile as well, so that memory does not grow with the image.
        checkpointing: Whether derivatives compute activations again block by block, by the VAE's own
            ``enable_gradient_checkpointing``, which is called on a copy that shares its weights.
        multiple: The number that divides the sides of latents, where the network asks for one.

    Raises:
        TypeError, ValueError: An argument breaks its rule.
    """

    def __init__(
        self,
        vae: Any,
        scaling: float | Sequence[float] | Tensor | None = None,
        shift: float | Sequence[float] | Tensor | None = None,
        tile: int | None = None,
        checkpointing: bool = False,
        multiple: int = 1,
    ) -> None:
        for name in ("encode", "decode"):
            if not callable(getattr(vae, name, None)):
                raise TypeError(f"vae: must have encode(x) and decode(z), got {type(vae).__name__} without {name}")
        if tile is not None and (not is_integer(tile) or tile < 4):
            raise ValueError(f"tile: must be an integer >= 4, the side in latents, or None, got {tile!r}")
        if not is_integer(multiple) or multiple < 1:
            raise ValueError(f"multiple: must be an integer >= 1, got {multiple!r}")
        if not isinstance(checkpointing, bool):
            raise TypeError(f"checkpointing: must be True or False, got {checkpointing!r}")
        if checkpointing and not callable(getattr(vae, "enable_gradient_checkpointing", None)):
            raise ValueError(
                f"checkpointing: must be False for {type(vae).__name__}, which has no enable_gradient_checkpointing; "
                "give tile= to take derivatives of a part of the image at a time"
            )
        own_scaling, own_shift = of_config(config_of(vae))
        self.vae, self.tile, self.checkpointing, self.multiple = vae, tile, checkpointing, multiple
        self.scaling = numbers_of("scaling", own_scaling if scaling is None else scaling)
        self.shift = numbers_of("shift", own_shift if shift is None else shift)
        if (self.scaling == 0).any():
            raise ValueError(f"scaling: must not be zero, got {scaling!r}")
        self._factors: dict[tuple[int, ...], tuple[int, int]] = {}

    # ------------------------------------------------------------------------------------ shapes
    @property
    def device(self) -> torch.device | None:
        """The device of the weights; None for an autoencoder without any."""
        weight = next(self._weights(), None)
        return None if weight is None else weight.device

    @property
    def channels(self) -> int:
        """The number of channels of an image, 3 where the config does not say it."""
        return int(config_of(self.vae).get("in_channels") or 3)

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the latent of one image (C, H, W) or (C, L)."""
        channels, factor = self._factor(shape)
        return channels, *(self.multiple * math.ceil(side / (self.multiple * factor)) for side in shape[1:])

    def _factor(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The channels of a latent, and how many pixels along a side it stands for."""
        if shape not in self._factors:
            probe, failed = (shape[0], *(PROBE for _ in shape[1:])), None
            for tried in (probe, shape):
                try:
                    with torch.no_grad(), torch.inference_mode(False):
                        zeros = torch.zeros((1, *tried), dtype=torch.float32, device=self.device)
                        z = latents_of(self._call("encode", zeros), self.vae)
                except Exception as error:
                    failed = error
                    continue
                factors = {n / m for n, m in zip(tried[1:], z.shape[2:], strict=False)}
                if len(z.shape) == len(tried) + 1 and len(factors) == 1 and next(iter(factors)).is_integer():
                    self._factors[shape] = int(z.shape[1]), int(next(iter(factors)))
                    break
            else:
                raise ValueError(
                    f"vae: {type(self.vae).__name__}.encode must take images (B, {', '.join(map(str, shape))}) and "
                    "return latents whose sides are smaller by one whole factor"
                ) from failed
        return self._factors[shape]

    # ------------------------------------------------------------------------------------ maps
    def encode(self, x: Tensor) -> Tensor:
        """The latents of images, (B, *shape) to (B, *latent_shape(shape)), in the dtype of x."""
        with torch.no_grad():
            padded, parts, shape = self._prepared(x)
            return applied(self._encode, padded, parts, shape)

    def decode(self, z: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """The images of latents, in the dtype of z, cropped to ``shape`` of one image."""
        with torch.no_grad():
            x = self._decoded(z, shape)
        return x if shape is None else cropped(x, shape)

    def pull_encoder(self, x: Tensor, cotangent: Cotangent) -> Tensor:
        """J^T v of ``encode`` at x, with v = cotangent(encode(x))."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            padded, parts, _ = self._prepared(leaf)
        v = self._pull(self._encode, padded.detach(), parts, lambda: self.encode(x), cotangent)
        return gradient_of(padded, leaf, v)

    def pull_decoder(self, z: Tensor, cotangent: Cotangent, shape: tuple[int, ...] | None = None) -> Tensor:
        """J^T v of ``decode`` at z, with v = cotangent(decode(z))."""

        def whole(x: Tensor) -> Tensor:
            if shape is None:
                return cotangent(x)
            missing = [n - m for n, m in zip(x.shape[2:], shape[1:], strict=True)]
            v = cotangent(cropped(x, shape))
            return functional.pad(v, [n for side in reversed(missing) for n in (0, side)])

        parts = self._decoder_windows(z, shape)
        return self._pull(self._decode, z, parts, lambda: self._decoded(z, shape), whole)

    def _pull(
        self,
        function: Callable[[Tensor], Tensor],
        x: Tensor,
        parts: list[Any],
        whole: Callable[[], Tensor],
        cotangent: Cotangent,
    ) -> Tensor:
        if len(parts) > 1:
            with torch.no_grad():
                value = whole()
            return pulled(function, x, cotangent(value), parts)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            output = function(leaf)
        return gradient_of(output, leaf, cotangent(output.detach()))

    def _prepared(self, x: Tensor) -> tuple[Tensor, list[Any], tuple[int, ...]]:
        """Images with sides that latents cover, the windows of the encoder, and the shape of the latents."""
        own = tuple(x.shape[1:])
        (channels, *sides), factor = self.latent_shape(own), self._factor(own)[1]
        missing = [side * factor - n for side, n in zip(sides, own[1:], strict=True)]
        if any(missing):
            x = functional.pad(x, [n for side in reversed(missing) for n in (0, side)], mode="replicate")
        return x, list(windows(tuple(sides), self.tile, (factor, 1))), (len(x), channels, *sides)

    def _decoder_windows(self, z: Tensor, shape: tuple[int, ...] | None) -> list[Any]:
        image = shape or (self.channels, *(PROBE for _ in z.shape[2:]))
        return list(windows(tuple(z.shape[2:]), self.tile, (1, self._factor(tuple(image))[1])))

    def _decoded(self, z: Tensor, shape: tuple[int, ...] | None) -> Tensor:
        parts = self._decoder_windows(z, shape)
        image = shape or (self.channels, *(PROBE for _ in z.shape[2:]))
        factor = self._factor(tuple(image))[1]
        sides = tuple(side * factor for side in z.shape[2:])
        x = applied(self._decode, z, parts, (len(z), image[0], *sides))
        if tuple(x.shape) != (len(z), image[0], *sides):
            raise ValueError(
                f"vae: {type(self.vae).__name__}.decode must return images {(len(z), image[0], *sides)} of latents "
                f"{tuple(z.shape)}, got {tuple(x.shape)}"
            )
        return x

    # ------------------------------------------------------------------------------------ the calls
    def _encode(self, x: Tensor) -> Tensor:
        z = latents_of(self._call("encode", x), self.vae).to(x.dtype)
        return (z - self._like(self.shift, z)) * self._like(self.scaling, z)

    def _decode(self, z: Tensor) -> Tensor:
        z = z / self._like(self.scaling, z) + self._like(self.shift, z)
        return image_of(self._call("decode", z), self.vae).to(z.dtype)

    def _like(self, numbers: Tensor, z: Tensor) -> Tensor:
        if len(numbers) not in (1, z.shape[1]):
            raise ValueError(
                f"scaling, shift: must be a number or one for each of {z.shape[1]} channels, got {len(numbers)}"
            )
        return numbers.to(z).reshape(-1, *(1,) * (z.ndim - 2))

    def _weights(self) -> Any:
        return self.vae.parameters() if isinstance(self.vae, nn.Module) else iter(())

    def _call(self, name: str, x: Tensor) -> Any:
        """One call of the VAE in the dtype of its weights; those of videos get images of one frame."""
        vae = self._recomputing() if self.checkpointing and torch.is_grad_enabled() else self.vae
        weight = next((w for w in self._weights() if w.is_floating_point()), None)
        dtype = x.dtype if weight is None else weight.dtype
        upcast = dtype == torch.float16 and bool(config_of(self.vae).get("force_upcast"))
        given = x.to(torch.float32 if upcast else dtype)
        if any(w.ndim == 5 for w in self._weights()):
            given = given.unsqueeze(2)
        if not upcast:
            return getattr(vae, name)(given)
        tensors = {f"vae.{key}": value for key, value in [*vae.named_parameters(), *vae.named_buffers()]}
        wide = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
        return functional_call(Method(vae, name), wide, (given,))

    def _recomputing(self) -> Any:
        """A copy of the VAE that shares its weights, and computes activations again where a derivative is taken."""
        shared = {id(tensor): tensor for tensor in [*self.vae.parameters(), *self.vae.buffers()]}
        other = copy.deepcopy(self.vae, shared)
        other.enable_gradient_checkpointing()
        return other

    def __repr__(self) -> str:
        return f"Autoencoder({type(self.vae).__name__})"


class Method(nn.Module):
    """A method of a module as the call of one, for ``functional_call``."""

    def __init__(self, vae: nn.Module, name: str) -> None:
        super().__init__()
        self.vae, self.name = vae, name

    def forward(self, x: Tensor) -> Any:
        return getattr(self.vae, self.name)(x)


def config_of(vae: Any) -> Mapping[str, Any]:
    config = getattr(vae, "config", None)
    return config if isinstance(config, Mapping) else {}


def of_config(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """Scaling and shift as the pipelines of diffusers read them."""
    scaling = config.get("scaling_factor")
    scaling = 1.0 if scaling is None else scaling
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        return torch.as_tensor(scaling, dtype=torch.float64) / torch.as_tensor(std, dtype=torch.float64), mean
    shift = config.get("shift_factor")
    return scaling, 0.0 if shift is None else shift


def numbers_of(name: str, value: Any) -> Tensor:
    """Finite numbers as (1,) or (C,) in float64."""
    try:
        numbers = torch.as_tensor(value, dtype=torch.float64).detach().cpu().reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: must be a number, or one for every channel of the latents, got {value!r}") from error
    if not numbers.numel() or not numbers.isfinite().all():
        raise ValueError(f"{name}: must be finite, got {value!r}")
    return numbers


def cropped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x[(..., *(slice(side) for side in shape[1:]))]


def latents_of(output: Any, vae: Any) -> Tensor:
    """The latents of what ``encode`` returned: a tensor, the mode of a distribution, or the first of a tuple."""
    if isinstance(output, Tensor):
        return frame_of(output)
    if isinstance(output, tuple | list) and not hasattr(output, "_fields") and len(output):
        return latents_of(output[0], vae)
    for name in ("latent_dist", "latents", "latent"):
        inner = getattr(output, name, None)
        if inner is not None:
            return latents_of(inner, vae)
    mode = getattr(output, "mode", None)
    if callable(mode):
        return latents_of(mode(), vae)
    raise TypeError(
        f"vae: {type(vae).__name__}.encode must return a tensor, a distribution with mode(), or an object with "
        f"latent_dist, latents or latent, got {type(output).__name__}"
    )


def image_of(output: Any, vae: Any) -> Tensor:
    """The images of what ``decode`` returned."""
    if isinstance(output, tuple | list) and not hasattr(output, "sample") and len(output):
        output = output[0]
    output = getattr(output, "sample", output)
    if not isinstance(output, Tensor):
        raise TypeError(
            f"vae: {type(vae).__name__}.decode must return a tensor or an object with sample, got "
            f"{type(output).__name__}"
        )
    return frame_of(output)


def frame_of(x: Tensor) -> Tensor:
    """A batch of videos of one frame as one of images."""
    return x.squeeze(2) if x.ndim == 5 else x
