"""The network of the bundled priors, a small, fully convolutional U-Net.

It has three resolutions (1/2, 1/4 and 1/8 of the image) and residual blocks that are modulated by the noise level
(FiLM, Perez et al., arXiv 1709.07871). There is no attention, and only the channels of one pixel are normalised
together. One set of weights therefore serves every image whose sides are divisible by 8, and the result at a pixel does
not depend on far-away content.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["UNet", "channels_last"]

MULTIPLE = 8
"""The number by which image sides must be divisible."""

HEADS = ("vp", "flow")


def vp_time(mu: Tensor) -> Tensor:
    """The time in [0, 1] at which VP(0.1, 20) has the signal level mu: mu^2 = exp(-(0.1 t + 9.95 t^2))."""
    exponent = -2 * torch.log(mu.clamp_min(1e-6))
    return ((exponent * 39.8 + 0.01).sqrt() - 0.1).div(19.9).clamp_max(1.0)


class TimeEmbedding(nn.Module):
    """Sinusoidal features of the network times (B,), from 0 to 999, and two linear layers, which return (B, width).

    Args:
        width: the number of features returned.
        features: the number of sinusoidal features.
    """

    frequencies: Tensor

    def __init__(self, width: int, features: int = 64) -> None:
        super().__init__()
        exponent = torch.arange(features // 2, dtype=torch.float32) / (features // 2 - 1)
        self.register_buffer("frequencies", torch.exp(-math.log(1e4) * exponent), persistent=False)
        self.first = nn.Linear(features, width)
        self.second = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        phase = time.float()[:, None] * self.frequencies
        features = torch.cat([phase.sin(), phase.cos()], dim=1).to(self.first.weight.dtype)
        return functional.silu(self.second(functional.silu(self.first(features))))


class ResidualBlock(nn.Module):
    """``x + conv(silu(scale * conv(silu(norm(x))) + shift))`` with scale and shift from the time embedding."""

    def __init__(self, channels: int, time_width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(time_width, 2 * channels)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        normal = functional.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],)).permute(0, 3, 1, 2)
        h = torch.addcmul(shift, self.first(functional.silu(normal)), scale + 1)
        return x + self.second(functional.silu(h))


class UNet(nn.Module):
    """A network that predicts noise or velocity, (B, C, H, W), from states (B, C, H, W) and times (B,).

    The last layer predicts v = mu eps - sigma x0 of the variance-preserving state x_vp = mu x0 + sigma eps (Salimans
    and Ho, arXiv 2202.00512), well scaled at every noise level, from x_vp and its time on VP(0.1, 20). The head says
    what x and the prediction are:

    - "vp": x = x_vp; the prediction is the noise, eps = sigma x + mu v.
    - "flow": x = t x0 + (1 - t) eps; with n = sqrt(t^2 + (1 - t)^2), x_vp = x / n, mu = t / n and sigma = (1 - t) / n,
      the prediction is the velocity, x0 - eps = (mu - sigma) x_vp - (mu + sigma) v. At one ratio of signal to noise
      both heads ask the same of the layers, so that either prior can be trained on from the weights of the other.

    Args:
        channels: the number C of image channels.
        widths: the numbers of channels at 1/2, 1/4 and 1/8 of the resolution.
        blocks: the number of residual blocks at each resolution, on the way down and again on the way up.
        middle: the number of residual blocks at the lowest resolution.
        head: "vp", which predicts the noise on VP(0.1, 20), or "flow", which predicts the velocity of the rectified
            flow; both take the time 999 t.

    Attributes:
        arguments: the arguments by name.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: tuple[int, int, int] = (64, 96, 128),
        blocks: int = 2,
        middle: int = 3,
        head: str = "vp",
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"head: must be one of {', '.join(map(repr, HEADS))}, got {head!r}")
        self.head = head
        self.arguments = {"channels": channels, "widths": widths, "blocks": blocks, "middle": middle, "head": head}
        time_width = 2 * widths[0]
        self.time = TimeEmbedding(time_width)
        self.enter = nn.Conv2d(4 * channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(ResidualBlock(w, time_width) for w in widths[:2] for _ in range(blocks))
        self.middle = nn.ModuleList(ResidualBlock(widths[2], time_width) for _ in range(middle))
        self.up = nn.ModuleList(ResidualBlock(w, time_width) for w in (widths[1], widths[0]) for _ in range(blocks))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in reversed(list(pairwise(widths))))
        self.leave = nn.Conv2d(widths[0], 4 * channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]
        self.blocks = blocks

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        if x.shape[-1] % MULTIPLE or x.shape[-2] % MULTIPLE:
            raise ValueError(f"x: height and width must be divisible by {MULTIPLE}, got {tuple(x.shape[-2:])}")
        t = time.float() / 999.0
        if self.head == "flow":
            norm = (t.square() + (1 - t).square()).sqrt()
            mu, sigma = t / norm, (1 - t) / norm
            x = x / norm[:, None, None, None].to(x.dtype)
            time = 999.0 * vp_time(mu)
            a, b = mu - sigma, -(mu + sigma)
        else:
            mu = torch.exp(-0.5 * (0.1 * t + 9.95 * t * t))
            a, b = (1.0 - mu.square()).sqrt(), mu
        embedding = self.time(time)
        h = self.enter(functional.pixel_unshuffle(x, 2))
        skips = []
        for level in range(2):
            for block in self.down[level * self.blocks : (level + 1) * self.blocks]:
                h = block(h, embedding)
            skips.append(h)
            h = self.shrink[level](h)
        for block in self.middle:
            h = block(h, embedding)
        for level in range(2):
            h = self.grow[level](h) + skips.pop()
            for block in self.up[level * self.blocks : (level + 1) * self.blocks]:
                h = block(h, embedding)
        v = functional.pixel_shuffle(self.leave(functional.silu(h)), 2)
        a, b = a[:, None, None, None], b[:, None, None, None]
        return torch.addcmul(a * x, b, v.to(x.dtype))


def channels_last(network: nn.Module) -> nn.Module:
    """The network with the weights of its convolutions channels last, with which they are faster, on the CPU too."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network
