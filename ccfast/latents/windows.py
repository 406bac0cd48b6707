"""Overlapping windows of a grid of latents, with weights that add up to 1, for autoencoders that run tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Window", "applied", "pulled", "windows"]

Map = Callable[[Tensor], Tensor]


class Window(NamedTuple):
    """A part of the input, the part of the output that it makes, and how much of that counts.

    Attributes:
        source, target: The slices of the spatial dimensions of input and output.
        weight: The factors of the output, which broadcast to it; None where there is one window alone.
    """

    source: tuple[slice, ...]
    target: tuple[slice, ...]
    weight: Tensor | None

    def of(self, x: Tensor) -> Tensor:
        return x[(..., *self.source)]

    def weighted(self, x: Tensor) -> Tensor:
        return x if self.weight is None else x * self.weight.to(x)


def windows(sides: tuple[int, ...], tile: int | None, scales: tuple[int, int]) -> Iterator[Window]:
    """The windows of a map between grids of ``sides`` times the first and times the second scale.

    Neighbours overlap by a quarter of a tile, where the weights of both are linear and add up to 1.

    Args:
        sides: The sides in latents.
        tile: The side of a window in latents; None for one window.
        scales: The pixels of a latent in the input and in the output, 1 for latents themselves.
    """
    if tile is None or all(side <= tile for side in sides):
        whole = (slice(None),) * len(sides)
        yield Window(whole, whole, None)
        return
    ramp = max(tile // 4, 1)
    for chosen in product(*(_spans(side, tile, ramp) for side in sides)):
        source = tuple(slice(first * scales[0], last * scales[0]) for first, last, _, _ in chosen)
        target = tuple(slice(first * scales[1], last * scales[1]) for first, last, _, _ in chosen)
        weight = torch.ones(())
        for first, last, before, after in chosen:
            weight = weight[..., None] * _weight(last - first, before, after, scales[1])
        yield Window(source, target, weight)


def _spans(side: int, tile: int, ramp: int) -> list[tuple[int, int, int, int]]:
    """(first, last, overlap with the one before, overlap with the next) of windows that cover a side."""
    firsts = list(range(0, max(side - ramp, 1), tile - ramp)) if side > tile else [0]
    ends = [min(first + tile, side) for first in firsts]
    before = [0, *(last - first for first, last in zip(firsts[1:], ends[:-1], strict=True))]
    return list(zip(firsts, ends, before, [*before[1:], 0], strict=True))


def _weight(length: int, before: int, after: int, scale: int) -> Tensor:
    weight = torch.ones(length * scale)
    if before:
        up = (torch.arange(before * scale) + 0.5) / (before * scale)
        weight[: before * scale] *= up
    if after:
        down = 1.0 - (torch.arange(after * scale) + 0.5) / (after * scale)
        weight[(length - after) * scale :] *= down
    return weight


def applied(function: Map, x: Tensor, parts: list[Window], shape: tuple[int, ...]) -> Tensor:
    """The map of x, window by window, as a tensor of this shape, without a graph."""
    if len(parts) == 1:
        return function(x)
    result = x.new_zeros(shape)
    for part in parts:
        result[(..., *part.target)] += part.weighted(function(part.of(x)))
    return result


def pulled(function: Map, x: Tensor, v: Tensor, parts: list[Window]) -> Tensor:
    """J^T v of that map at x, of which one window at a time keeps a graph."""
    gradient = torch.zeros_like(x)
    for part in parts:
        with torch.enable_grad():
            leaf = part.of(x).detach().clone().requires_grad_()
            output = function(leaf)
        gradient[(..., *part.source)] += gradient_of(output, leaf, part.weighted(v[(..., *part.target)]))
    return gradient


def gradient_of(output: Tensor, leaf: Tensor, v: Tensor) -> Tensor:
    """(d output/d leaf)^T v, or ValueError where the graph between them is cut."""
    if output.requires_grad:
        (gradient,) = torch.autograd.grad(output, leaf, v.to(output.dtype), allow_unused=True)
        if gradient is not None:
            return gradient
    raise ValueError(
        "vae: its outputs must be differentiable, but they are detached (no_grad, detach or numpy inside?); LATINO() "
        "and ReSample() take no derivative of it"
    )
