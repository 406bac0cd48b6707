"""guided-diffusion (Dhariwal & Nichol, arXiv 2105.05233): the U-Net ADM, with the names of the public checkpoints.

    denoiser = guided_diffusion.load("256x256_diffusion_uncond.pt", "imagenet256")

The network predicts eps and, in three more channels, the variance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..denoiser import Denoiser
from ..schedules import DiscreteVP

__all__ = ["ADM", "CONFIGS", "Config", "load", "read_state"]


class Config(NamedTuple):
    """The architecture of a network.

    Attributes:
        channels: the number of channels at full resolution.
        multiples: the multiple of ``channels`` at each level; the side is halved from level to level.
        blocks: the number of residual blocks at each level on the way down; there is one more on the way up.
        attention: the reductions of the side (1, 2, 4, ...) at which there is attention.
        head_channels: the number of channels of an attention head.
        classes: the number of class labels, or None for an unconditional network.
        learned_variance: whether the output has three more channels, for the variance.
    """

    channels: int
    multiples: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    head_channels: int = 64
    classes: int | None = None
    learned_variance: bool = True


CONFIGS = {
    "imagenet256": Config(256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32)),
    "imagenet256_conditional": Config(256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32), classes=1000),
    "ffhq256": Config(128, (1, 1, 2, 2, 4, 4), 1, (16,)),
}
"""The public 256 x 256 checkpoints: ``256x256_diffusion_uncond.pt``, ``256x256_diffusion.pt``, and the FFHQ network of
Choi et al. that DPS and C-PiGDM use (``ffhq_10m.pt``)."""


class Norm(nn.GroupNorm):
    """A group norm of 32 groups that is computed in float32, whatever the dtype of the input."""

    def __init__(self, channels: int) -> None:
        super().__init__(32, channels)

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        return functional.group_norm(input.float(), self.num_groups, weight, bias, self.eps).to(input)


class Block(nn.Module):
    """A residual block whose second norm is scaled and shifted by the embedding.

    ``change`` is "", or "up" or "down" where the block changes the resolution by 2.
    """

    def __init__(self, channels: int, out: int, embedding: int, change: str = "") -> None:
        super().__init__()
        self.change = change
        self.in_layers = nn.Sequential(Norm(channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * out))
        self.out_layers = nn.Sequential(Norm(out), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(out, out, 3, padding=1))
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.resize(self.in_layers[1](self.in_layers[0](x)))
        h, x = self.in_layers[2](h), self.resize(x)
        scale, shift = self.emb_layers(embedding)[..., None, None].chunk(2, dim=1)
        h = self.out_layers[0](h) * (1.0 + scale) + shift
        return self.skip_connection(x) + self.out_layers[3](self.out_layers[1](h))

    def resize(self, x: Tensor) -> Tensor:
        if self.change == "up":
            return functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return functional.avg_pool2d(x, 2) if self.change == "down" else x


class Attention(nn.Module):
    """Self-attention over the pixels. ``qkv`` holds the query, key and value of one head after those of another."""

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        if channels % head_channels:
            raise ValueError(f"head_channels: must divide {channels}, got {head_channels}")
        self.heads = channels // head_channels
        self.norm = Norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        flat = x.flatten(2)
        q, k, v = self.qkv(self.norm(flat)).unflatten(1, (self.heads, -1)).mT.chunk(3, dim=-1)
        attended = functional.scaled_dot_product_attention(q, k, v).mT.flatten(1, 2)
        return (flat + self.proj_out(attended)).reshape(x.shape)


class ADM(nn.Module):
    """The U-Net, called as network(x, t) with t (B,) the index of the time, from 0 to 999.

    x is (B, 3, H, W) with sides divisible by 2 for every level but the first. A class-conditional network takes labels
    (B,) as ``y``, which ``Denoiser(network_kwargs={"y": labels})`` passes on.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width, embedding = config.channels, 4 * config.channels
        self.time_embed = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        if config.classes is not None:
            self.label_emb = nn.Embedding(config.classes, embedding)

        def block(channels: int, out: int, side: int, change: str = "") -> list[nn.Module]:
            layers: list[nn.Module] = [Block(channels, out, embedding, change)]
            return [*layers, Attention(out, config.head_channels)] if side in config.attention else layers

        channels, side, kept = width, 1, [width]
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(3, width, 3, padding=1)])])
        for level, multiple in enumerate(config.multiples):
            for _ in range(config.blocks):
                self.input_blocks.append(nn.ModuleList(block(channels, multiple * width, side)))
                channels = multiple * width
                kept.append(channels)
            if level + 1 < len(config.multiples):
                self.input_blocks.append(nn.ModuleList([Block(channels, channels, embedding, "down")]))
                kept.append(channels)
                side *= 2
        self.middle_block = nn.ModuleList(
            [
                Block(channels, channels, embedding),
                Attention(channels, config.head_channels),
                Block(channels, channels, embedding),
            ]
        )
        self.output_blocks = nn.ModuleList()
        for level, multiple in reversed(list(enumerate(config.multiples))):
            for number in range(config.blocks + 1):
                layers = block(channels + kept.pop(), multiple * width, side)
                channels = multiple * width
                if level and number == config.blocks:
                    layers.append(Block(channels, channels, embedding, "up"))
                    side //= 2
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(
            Norm(channels), nn.SiLU(), nn.Conv2d(channels, 6 if config.learned_variance else 3, 3, padding=1)
        )

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if (y is None) != (self.config.classes is None):
            raise ValueError(f"y: class labels must be given exactly for a class-conditional network, got {y!r}")
        embedding = self.time_embed(sinusoids(t, self.config.channels).to(x))
        if y is not None:
            embedding = embedding + self.label_emb(y)
        kept = []
        for layers in self.input_blocks:
            x = run(layers, x, embedding)
            kept.append(x)
        x = run(self.middle_block, x, embedding)
        for layers in self.output_blocks:
            x = run(layers, torch.cat([x, kept.pop()], dim=1), embedding)
        return self.out(x)


def run(layers: Any, x: Tensor, embedding: Tensor) -> Tensor:
    for layer in layers:
        # The first layer of the network is a convolution, which takes no embedding.
        x = layer(x) if isinstance(layer, nn.Conv2d) else layer(x, embedding)
    return x


def sinusoids(t: Tensor, count: int) -> Tensor:
    """cos, then sin, of t 10000^(-k/half) for k = 0 .. half - 1 with half = count/2, as float32 (B, count)."""
    frequencies = torch.exp(-math.log(10000.0) / (count // 2) * torch.arange(count // 2, device=t.device))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def load(path: str | Path, name: str, network_kwargs: Mapping[str, Any] | None = None) -> Denoiser:
    """A public checkpoint as a Denoiser, in float32 on the CPU.

    The network predicts eps on 1000 steps whose beta rises linearly from 0.0001 to 0.02.

    Args:
        path: the ``.pt`` file.
        name: a key of ``CONFIGS``.
        network_kwargs: ``{"y": labels}`` for a class-conditional network.

    Raises:
        ValueError: the name is unknown, or the parameters in the file are not those of the network.
    """
    if name not in CONFIGS:
        raise ValueError(f"name: must be one of {', '.join(CONFIGS)}, got {name!r}")
    with torch.device("meta"):
        network = ADM(CONFIGS[name])
    read_state(network, torch.load(path, map_location="cpu", weights_only=True), str(path))
    schedule = DiscreteVP(np.linspace(1e-4, 0.02, 1000))
    return Denoiser(network.eval().requires_grad_(False), schedule, name=name, network_kwargs=network_kwargs)


def read_state(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Give a network that was made on the meta device its parameters, as float32.

    Raises:
        ValueError: names or shapes differ, of which the message shows some.
    """
    own = network.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) or [k for k in own if own[k].shape != state[k].shape]
    if wrong:
        raise ValueError(
            f"{source}: must hold the {len(own)} parameters of {type(network).__name__}, got {len(state)}; missing, "
            f"unknown or of another shape: {', '.join(wrong[:5])}"
        )
    network.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
