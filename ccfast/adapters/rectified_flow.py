"""Rectified flow (Liu et al., arXiv 2209.03003): the NCSN++ of its public 256 x 256 checkpoints, with their names.

    denoiser = rectified_flow.load("checkpoint.pth")

The architecture is NCSN++ (Song et al., arXiv 2011.13456): BigGAN blocks, resampling with the filter (1, 3, 3, 1), sums
from a pyramid of the input, the output summed over a pyramid. Its time is 999 t, by which the output is divided.
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
    """Shape of a network for images of one size; ``attention`` are the sides at which there is attention."""

    channels: int = 128
    multiples: tuple[int, ...] = (1, 1, 2, 2, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    side: int = 256


def resample(x: Tensor, change: str) -> Tensor:
    """By 2 with the filter (1, 3, 3, 1)/8 on rows and columns; "up", "down", or "" for none."""
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
    """sin and cos of 2 pi W ln(time), W random and fixed."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.W = nn.Parameter(16.0 * torch.randn(count), requires_grad=False)

    def forward(self, time: Tensor) -> Tensor:
        angles = 2.0 * math.pi * time.log()[:, None] * self.W
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Block(nn.Module):
    """BigGAN residual block, its sum divided by sqrt 2."""

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
    """A linear map of the channels, y_o = sum_i x_i W_io + b_o."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(channels, channels) / math.sqrt(channels))
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.W + self.b


class Attention(nn.Module):
    """One head over the pixels, its sum divided by sqrt 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.GroupNorm_0 = norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (Mix(channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x).flatten(2).mT
        h = functional.scaled_dot_product_attention(self.NIN_0(h), self.NIN_1(h), self.NIN_2(h))
        return (x + self.NIN_3(h).mT.reshape(x.shape)) / math.sqrt(2.0)


class Combine(nn.Module):
    """The pyramid of the input, brought to the channels of the features and added."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.Conv = nn.Conv2d(channels, out, 1)

    def forward(self, pyramid: Tensor, x: Tensor) -> Tensor:
        return self.Conv(pyramid) + x


class NCSNpp(nn.Module):
    """network(x, time), x (B, 3, side, side), time (B,) = 999 t > 0.

    Args:
        shape: of the network.
        centred: False: data, and x, are in [0, 1] (the LSUN checkpoints); the first thing done is 2 x - 1.
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
    """A public rectified-flow checkpoint as a Denoiser with the velocity, the averaged weights, float32 on the CPU.

    Args:
        path: of the ``.pth`` file, a dictionary with ``model`` (names behind ``module.``) and ``ema``, a list of the
            averages of the trained parameters in their order.
        shape: None: the 256 x 256 ones of AFHQ-Cat, CelebA-HQ and LSUN.
        centred: False for the LSUN checkpoints, whose images, and hence measurements here, are in [0, 1].

    Raises:
        ValueError: a file whose parameters are not those of the network.
    """
    with torch.device("meta"):
        network = NCSNpp(shape or Shape(), centred)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    state = {key.removeprefix("module."): value for key, value in checkpoint["model"].items()}
    state.pop("sigmas", None)  # a table of noise levels that this network does not use
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    averages = checkpoint["ema"]["shadow_params"]
    if len(averages) != len(trained):
        raise ValueError(f"{path}: must hold averages of {len(trained)} parameters, got {len(averages)}")
    read_state(network, {**state, **dict(zip(trained, averages, strict=True))}, str(path))
    return Denoiser(network.eval().requires_grad_(False), Flow(), "velocity", name="rectified_flow")
