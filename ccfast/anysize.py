"""A denoiser for images of any size, from one whose network needs sides divisible by some number.

The image is padded where it enters the network and cropped where it leaves. Padding there, and not the image or its
measurement, keeps the operator at the true size: no operator has to be continued beyond the border.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .denoiser import Denoiser
from .images import crop, pad_to_multiple

__all__ = ["PaddedNetwork", "any_size"]


class PaddedNetwork(nn.Module):
    """``network`` on (B, C, H, W) with any H and W: padded by reflection to multiples of ``multiple``, then cropped."""

    def __init__(self, network: Callable[..., Tensor], multiple: int) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple

    def forward(self, x: Tensor, time: Tensor, **network_kwargs: Any) -> Tensor:
        padded, hw = pad_to_multiple(x, self.multiple)
        return crop(self.network(padded, time, **network_kwargs), hw)


def any_size(denoiser: Denoiser, multiple: int) -> Denoiser:
    """The same denoiser (schedule, prediction, times, name and so presets), around ``PaddedNetwork``."""
    return Denoiser(
        PaddedNetwork(denoiser.network, multiple),
        denoiser.schedule,
        denoiser.prediction,
        denoiser.time_map,
        denoiser.name,
        denoiser.network_kwargs,
    )
