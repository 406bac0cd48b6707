"""Denoisers for images of any size, made from one whose network needs sides divisible by some number.

The state is padded where it enters the network, and the output is cropped. Since neither the image nor its measurement
is padded, the operator keeps the true size and has not to be continued beyond the border.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from ..denoiser import Denoiser
from .unet import MULTIPLE

__all__ = ["PaddedNetwork", "any_size", "crop", "multiple_of", "pad_to_multiple"]


class PaddedNetwork(nn.Module):
    """``network`` for (B, C, H, W) of any size: pads H and W to multiples of ``multiple`` and crops the output."""

    def __init__(self, network: Callable[..., Tensor], multiple: int) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple

    def forward(self, x: Tensor, time: Tensor, **network_kwargs: Any) -> Tensor:
        padded, hw = pad_to_multiple(x, self.multiple)
        return crop(self.network(padded, time, **network_kwargs), hw)


def any_size(denoiser: Denoiser, multiple: int) -> Denoiser:
    """The same denoiser with a ``PaddedNetwork``; it keeps all else, the name and so presets too."""
    other = copy.copy(denoiser)
    other.network, other.network_kwargs = PaddedNetwork(denoiser.network, multiple), dict(denoiser.network_kwargs)
    return other


def multiple_of(network: Any) -> int:
    """What sides must be divisible by: 2^(levels - 1) for a U-Net whose config has its levels, and at least 8."""
    while isinstance(network, nn.Module) and isinstance(getattr(network, "network", None), nn.Module):
        network = network.network
    config = getattr(network, "config", None)
    levels = config.get("block_out_channels") if isinstance(config, Mapping) else getattr(config, "multiples", None)
    return max(MULTIPLE, 2 ** (len(levels or ()) - 1) if levels else 1)


def pad_to_multiple(x: Tensor, multiple: int) -> tuple[Tensor, tuple[int, int]]:
    """Pad (..., H, W) at the bottom and right until both sides are divisible by ``multiple``.

    The padding reflects the image, or repeats its edge where a side is not longer than the padding, which a reflection
    cannot fill.

    Returns:
        The padded tensor and (H, W), with which ``crop`` undoes it.
    """
    if multiple < 1:
        raise ValueError(f"multiple: must be at least 1, got {multiple}")
    if x.ndim < 3 or 0 in x.shape[-2:]:
        raise ValueError(f"x: must have shape (..., C, H, W) with positive sides, got {tuple(x.shape)}")
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    for padding, side in (((0, 0, 0, bottom), height), ((0, right, 0, 0), width)):
        if any(padding):
            x = functional.pad(x, padding, mode="reflect" if max(padding) < side else "replicate")
    return x, (height, width)


def crop(x: Tensor, hw: tuple[int, int]) -> Tensor:
    """The first H rows and W columns of (..., H', W').

    Raises:
        ValueError: H or W is larger than the side of the image.
    """
    if hw[0] > x.shape[-2] or hw[1] > x.shape[-1]:
        raise ValueError(f"hw: must be at most the sides of the image {tuple(x.shape[-2:])}, got {tuple(hw)}")
    return x[..., : hw[0], : hw[1]]
