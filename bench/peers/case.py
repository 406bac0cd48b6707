"""What all peers are given, and what is measured of each."""

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
"""Runs a sampler once; the restored image (1, 3, H, W) in [-1, 1]."""


class Counted(nn.Module):
    """A network that counts its evaluations."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.calls = network, 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.network(x, t)


class StandIn(nn.Module):
    """eps = a x, a network that costs one multiplication: what a run takes with it is the sampler's own."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.9), requires_grad=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.a * x


def stand_in(denoiser: ccfast.Denoiser) -> ccfast.Denoiser:
    """The stand-in with the schedule of another."""
    return ccfast.Denoiser(StandIn(), denoiser.schedule, "epsilon", name=denoiser.name)


@dataclass
class Case:
    """One problem, in [-1, 1].

    Attributes:
        denoiser: a VP one with beta from 0.1 to 20, the path that all the packages know; its network is counted.
        operator: H.
        y: the measurement (1, *measurement_shape).
        noise_std: of it.
        word: the operator's name, for the packages that have samplers for some only.
        evaluations: number asked of every sampler.
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
        """The result, seconds of the process and network evaluations of one run."""
        self.counter.calls = 0
        started = time.process_time()
        x = restore()
        return x, time.process_time() - started, self.counter.calls
