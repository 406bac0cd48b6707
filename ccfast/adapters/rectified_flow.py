"""Rectified flow (Liu et al., arXiv 2209.03003): the NCSN++ of the public 256 x 256 checkpoints, with their names.

    denoiser = rectified_flow.load("checkpoint.pth")

The architecture is NCSN++ (Song et al., arXiv 2011.13456). It has residual blocks as in BigGAN and resamples with the
filter (1, 3, 3, 1). Smaller copies of the input (a pyramid) are added to the features, and the output is the sum of
such a pyramid. The network's time is 999 t, and the output is divided by it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..denoiser import Denoiser
from ..schedules import Flow
from .guided_diffusion import read_state

__all__ = ["NCSNpp", "Shape", "load"]


class Shape(NamedTuple):
    """The architecture of a network for images of one size.

    Attributes:
        channels: the number of channels at full resolution.
        multiples: the multiple of ``channels`` at each level; the side is halved from level to level.
        blocks: the number of residual blocks at each level on the way down; there is one more on the way up.
        attention: the sides in pixels at which there is attention.
        side: the side of the images in pixels.
    """

    channels: int = 128
    multiples: tuple[int, ...] = (1, 1, 2, 2, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    side: int = 256


def resample(x: Tensor, change: str) -> Tensor:
    """x resampled by 2, with the filter (1, 3, 3, 1)/8 on rows and columns; ``change`` is "up", "down", or "" for x."""
    if not change:
        return x
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device) / 8.0
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
    if change == "up":
        return functional.conv_transpose2d(x, 4.0 * kernel, stride=2, padding=1, groups=x.shape[1])
    return functional.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


class Fourier(nn.Module):
    """sin, then cos, of 2 pi W ln(time), where W is random and fixed."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.W = nn.Parameter(16.0 * torch.randn(count), requires_grad=False)

    def forward(self, time: Tensor) -> Tensor:
        angles = 2.0 * math.pi * time.log()[:, None] * self.W
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Block(nn.Module):
    """A residual block as in BigGAN, whose sum is divided by sqrt 2."""

    def __init__(self, channels: int, out: int, embedding: int, change: str = "") -> None:
        super().__init__()
        self.change = change
        self.GroupNorm_0, self.Conv_0 = norm(channels), nn.Conv2d(channels, out, 3, padding=1)
        self.Dense_0 = nn.Linear(embedding, out)
        self.GroupNorm_1, self.Conv_1 = norm(out), nn.Conv2d(out, out, 3, padding=1)
        if channels != out or change:
            self.Conv_2 = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.Conv_0(resample(functional.silu(self.GroupNorm_0(x)), self.change))
        h = h + self.Dense_0(functional.silu(embedding))[:, :, None, None]
        h = self.Conv_1(functional.silu(self.GroupNorm_1(h)))
        x = resample(x, self.change)
        return ((self.Conv_2(x) if hasattr(self, "Conv_2") else x) + h) / math.sqrt(2.0)


class Mix(nn.Module):
    """A linear map of the channels of each pixel, y_o = sum_i x_i W_io + b_o."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(channels, channels) / math.sqrt(channels))
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.W + self.b


class Attention(nn.Module):
    """Self-attention of one head over the pixels, whose sum is divided by sqrt 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.GroupNorm_0 = norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (Mix(channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x).flatten(2).mT
        h = functional.scaled_dot_product_attention(self.NIN_0(h), self.NIN_1(h), self.NIN_2(h))
        return (x + self.NIN_3(h).mT.reshape(x.shape)) / math.sqrt(2.0)


class Combine(nn.Module):
    """The sum of the features and of the reduced input, which a convolution brings to their channels."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.Conv = nn.Conv2d(channels, out, 1)

    def forward(self, pyramid: Tensor, x: Tensor) -> Tensor:
        return self.Conv(pyramid) + x


class NCSNpp(nn.Module):
    """The network, called as network(x, time) with x (B, 3, side, side) and time (B,) = 999 t > 0.

    Args:
        shape: the architecture.
        centred: whether data are in [-1, 1]. The LSUN checkpoints have data in [0, 1]; 2 x - 1 goes into their layers.
    """

    def __init__(self, shape: Shape, centred: bool = True) -> None:
        super().__init__()
        self.shape, self.centred = shape, centred
        width, embedding = shape.channels, 4 * shape.channels
        modules: list[nn.Module] = [Fourier(width), nn.Linear(2 * width, embedding), nn.Linear(embedding, embedding)]
        modules.append(nn.Conv2d(3, width, 3, padding=1))
        channels, side, kept = width, shape.side, [width]
        for level, multiple in enumerate(shape.multiples):
            for _ in range(shape.blocks):
                modules.append(Block(channels, multiple * width, embedding))
                channels = multiple * width
                modules += [Attention(channels)] if side in shape.attention else []
                kept.append(channels)
            if level + 1 < len(shape.multiples):
                modules += [Block(channels, channels, embedding, "down"), Combine(3, channels)]
                kept.append(channels)
                side //= 2
        modules += [Block(channels, channels, embedding), Attention(channels), Block(channels, channels, embedding)]
        for level, multiple in reversed(list(enumerate(shape.multiples))):
            for _ in range(shape.blocks + 1):
                modules.append(Block(channels + kept.pop(), multiple * width, embedding))
                channels = multiple * width
            modules += [Attention(channels)] if side in shape.attention else []
            modules += [norm(channels), nn.Conv2d(channels, 3, 3, padding=1)]
            if level:
                modules.append(Block(channels, channels, embedding, "up"))
                side *= 2
        self.all_modules = nn.ModuleList(modules)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        if x.shape[-1] != self.shape.side or x.shape[-2] != self.shape.side:
            raise ValueError(f"x: sides must be {self.shape.side}, got {tuple(x.shape[-2:])}")
        shape, modules = self.shape, iter(self.all_modules)
        embedding = next(modules)(time.to(x))
        embedding = next(modules)(embedding)
        embedding = next(modules)(functional.silu(embedding))
        x = x if self.centred else 2.0 * x - 1.0
        pyramid, h = x, next(modules)(x)
        kept = [h]
        for level in range(len(shape.multiples)):
            for _ in range(shape.blocks):
                h = next(modules)(h, embedding)
                h = next(modules)(h) if h.shape[-1] in shape.attention else h
                kept.append(h)
            if level + 1 < len(shape.multiples):
                h, pyramid = next(modules)(h, embedding), resample(pyramid, "down")
                h = next(modules)(pyramid, h)
                kept.append(h)
        h = next(modules)(h, embedding)
        h = next(modules)(h)
        h = next(modules)(h, embedding)
        output: Tensor | None = None
        for level in reversed(range(len(shape.multiples))):
            for _ in range(shape.blocks + 1):
                h = next(modules)(torch.cat([h, kept.pop()], dim=1), embedding)
            h = next(modules)(h) if h.shape[-1] in shape.attention else h
            part = next(modules)(h)
            part = next(modules)(functional.silu(part))
            output = part if output is None else resample(output, "up") + part
            h = next(modules)(h, embedding) if level else h
        assert output is not None, "a network has at least one level"
        return output / time.to(x)[:, None, None, None]


def load(path: str | Path, shape: Shape | None = None, centred: bool = True) -> Denoiser:
    """A public rectified-flow checkpoint as a Denoiser, in float32 on the CPU; the network predicts the velocity.

    The weights are those averaged over the training.

    Args:
        path: the ``.pth`` file, a dictionary with ``model`` (names behind ``module.``) and ``ema``, a list of the
            averages of the trained parameters in their order.
        shape: the architecture; None is that of the 256 x 256 checkpoints of AFHQ-Cat, CelebA-HQ and LSUN.
        centred: False for the LSUN checkpoints, whose images, and hence measurements here, are in [0, 1].

    Raises:
        ValueError: the parameters in the file are not those of the network.
    """
    with torch.device("meta"):
        network = NCSNpp(shape or Shape(), centred)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    state = {key.removeprefix("module."): value for key, value in checkpoint["model"].items()}
    state.pop("sigmas", None)  # This table of noise levels is not used by the network.
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    averages = checkpoint["ema"]["shadow_params"]
    if len(averages) != len(trained):
        raise ValueError(f"{path}: must hold averages of {len(trained)} parameters, got {len(averages)}")
    read_state(network, {**state, **dict(zip(trained, averages, strict=True))}, str(path))
    return Denoiser(network.eval().requires_grad_(False), Flow(), "velocity", name="rectified_flow")
