"""The problem that all peers are given, and the measurement of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import ccfast
from ccfast.operators import Operator

__all__ = ["Case", "Counted", "Restore", "stand_in"]

Restore = Callable[[], Tensor]
"""Runs a sampler once and returns the restored image (1, 3, H, W) in [-1, 1]."""


class Counted(nn.Module):
    """A network that counts its evaluations."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.calls = network, 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.network(x, t)


class StandIn(nn.Module):
    """eps = a x, a network of one multiplication, so that the time of a run is the sampler's own."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.9), requires_grad=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.a * x


def stand_in(denoiser: ccfast.Denoiser) -> ccfast.Denoiser:
    """The stand-in for a network, with the schedule of ``denoiser``."""
    return ccfast.Denoiser(StandIn(), denoiser.schedule, "epsilon", name=denoiser.name)


@dataclass
class Case:
    """One problem, on images in [-1, 1].

    Attributes:
        denoiser: has the VP schedule with beta from 0.1 to 20, a path that all the packages know.
        operator: H.
        y: the measurement, (1, *measurement_shape).
        noise_std: the standard deviation of its noise.
        word: the name of the operator, by which some packages choose their samplers.
        evaluations: the number of network evaluations that every sampler is asked for.
        counter: the network of ``denoiser``, which counts its evaluations.
    """

    denoiser: ccfast.Denoiser
    operator: Operator
    y: Tensor
    noise_std: float
    word: str
    evaluations: int
    counter: Counted = field(init=False)

    def __post_init__(self) -> None:
        own = self.denoiser
        assert isinstance(own.network, nn.Module)
        self.counter = Counted(own.network)
        self.denoiser = ccfast.Denoiser(
            self.counter, own.schedule, own.prediction, own.time_map, own.name, own.network_kwargs
        )

    def timed(self, restore: Restore) -> tuple[Tensor, float, int]:
        """The result of one run, its processor seconds and its network evaluations."""
        self.counter.calls = 0
        started = time.process_time()
        x = restore()
        return x, time.process_time() - started, self.counter.calls
