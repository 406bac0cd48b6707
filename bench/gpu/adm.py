"""A network of the size of ADM (Dhariwal and Nichol, arXiv 2105.05233): 256 channels, six levels, random weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ADM"]

GROUPS, HEAD = 32, 64


class Block(nn.Module):
    """Residual block whose second normalisation is scaled and shifted by the time embedding."""

    def __init__(self, inward: int, outward: int, time: int) -> None:
        super().__init__()
        self.norm, self.first = nn.GroupNorm(GROUPS, inward), nn.Conv2d(inward, outward, 3, padding=1)
        self.again, self.second = nn.GroupNorm(GROUPS, outward), nn.Conv2d(outward, outward, 3, padding=1)
        self.film = nn.Linear(time, 2 * outward)
        self.skip = nn.Conv2d(inward, outward, 1) if inward != outward else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.film(functional.silu(time))[:, :, None, None].chunk(2, dim=1)
        h = self.again(self.first(functional.silu(self.norm(x)))) * (1 + scale) + shift
        return self.skip(x) + self.second(functional.silu(h))


class Attention(nn.Module):
    """Self-attention over the pixels, heads of 64 channels (of all where there are fewer)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // HEAD)
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv, self.out = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        flat = self.qkv(self.norm(x).flatten(2)).reshape(batch, 3, self.heads, channels // self.heads, -1)
        q, k, v = flat.transpose(-1, -2).unbind(1)
        h = functional.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(batch, channels, -1)
        return x + self.out(h).reshape(batch, channels, height, width)


class ADM(nn.Module):
    """Noise prediction, (B, 3, H, W) and times (B,) to (B, 3, H, W); sides divisible by 2^(levels - 1).

    Args:
        width: channels at full resolution, a multiple of 32.
        multiples: of them at each level.
        blocks: residual blocks at each level down, one more up.
        attention: levels, from 0, that have attention.
    """

    def __init__(
        self,
        width: int = 256,
        multiples: Sequence[int] = (1, 1, 2, 2, 4, 4),
        blocks: int = 2,
        attention: Sequence[int] = (3, 4, 5),
    ) -> None:
        super().__init__()
        self.width, time = width, 4 * width
        self.time = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.begin = nn.Conv2d(3, width, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels, kept = width, [width]

        def stage(inward: int, outward: int, level: int) -> nn.ModuleList:
            parts: list[nn.Module] = [Block(inward, outward, time)]
            return nn.ModuleList(parts + ([Attention(outward)] if level in attention else []))

        for level, multiple in enumerate(multiples):
            stages = nn.ModuleList()
            for _ in range(blocks):
                stages.append(stage(channels, multiple * width, level))
                channels = multiple * width
                kept.append(channels)
            self.down.append(stages)
            if level < len(multiples) - 1:
                kept.append(channels)
        self.middle = nn.ModuleList(
            [Block(channels, channels, time), Attention(channels), Block(channels, channels, time)]
        )
        for level, multiple in reversed(list(enumerate(multiples))):
            stages = nn.ModuleList()
            for _ in range(blocks + 1):
                stages.append(stage(channels + kept.pop(), multiple * width, level))
                channels = multiple * width
            self.up.append(stages)
        self.norm, self.end = nn.GroupNorm(GROUPS, channels), nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        half = self.width // 2
        frequencies = torch.exp(torch.arange(half, device=x.device) * (-math.log(1e4) / half))
        phase = t.float()[:, None] * frequencies
        time = self.time(torch.cat([phase.cos(), phase.sin()], 1).to(x.dtype))
        h = self.begin(x)
        kept = [h]
        for level, stages in enumerate(self.down):
            for stage in stages:  # type: ignore[union-attr]
                for part in stage:
                    h = part(h, time)
                kept.append(h)
            if level < len(self.down) - 1:
                h = functional.avg_pool2d(h, 2)
                kept.append(h)
        for part in self.middle:
            h = part(h, time)
        for level, stages in enumerate(self.up):
            for stage in stages:  # type: ignore[union-attr]
                h = torch.cat([h, kept.pop()], 1)
                for part in stage:
                    h = part(h, time)
            if level < len(self.up) - 1:
                h = functional.interpolate(h, scale_factor=2.0, mode="nearest")
        return self.end(functional.silu(self.norm(h)))
