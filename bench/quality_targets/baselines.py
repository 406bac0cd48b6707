"""The methods that a five-step sample is compared with: H+ y, fills and filters, and samplers with the same prior."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

import ccfast
from bench.quality.methods import BASELINES
from bench.quality_targets.scores import RESULTS
from ccfast.operators import Inpainting, Operator

__all__ = ["RIVALS", "STEPS", "TUNED", "harmonic_fill", "methods", "wiener"]

STEPS = 20
"""The number of network evaluations of the samplers that ours is compared with."""
TUNED = RESULTS / "tuned_baselines.json"
"""The file of their parameters, which ``bench.quality_targets.tune_baselines`` chooses on training photographs."""

RIVALS = {method.name: method for method in BASELINES if method.name in ("PiGDM", "DDNM")}
"""The samplers that ours is compared with, each with candidates of its parameters that hold the published choice."""

Method = Callable[[Tensor], Tensor]


def harmonic_fill(y: Tensor, mask: Tensor, sweeps: int = 4000) -> Tensor:
    """The image whose hidden pixels solve Laplace's equation, by Jacobi sweeps; ``mask`` is 1 where it is observed."""
    x, mask = y.clone(), mask.to(y.dtype)
    for _ in range(sweeps):
        padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        mean = (padded[..., 1:-1, 2:] + padded[..., 1:-1, :-2] + padded[..., 2:, 1:-1] + padded[..., :-2, 1:-1]) / 4
        x = mask * y + (1 - mask) * mean
    return x


def wiener(operator: Operator, y: Tensor, ratio: float) -> Tensor:
    """V s/(s^2 + ratio) U^T y, where ``ratio`` is the power of the noise over that of the signal."""
    s = operator.singular_values.to(y)
    return operator.lift(operator.encode(y) * (s.square() / (s.square() + ratio)))


def methods(denoiser: ccfast.Denoiser, task: str, operator: Operator, samples: int) -> Iterator[tuple[str, Method]]:
    """The name of every method that is compared on a task, and a function that restores a measurement with it."""
    chosen = json.loads(TUNED.read_text())
    yield "H+ y", operator.pinv
    if isinstance(operator, Inpainting):
        yield "harmonic fill", lambda y: harmonic_fill(y, operator.singular_values)
    if task in chosen["wiener"]:
        yield "Wiener", lambda y: wiener(operator, y, chosen["wiener"][task]["ratio"])
    default = ccfast.Sampler(denoiser, operator)
    yield "ccfast, 5 steps", lambda y: default(y, seed=0)
    yield f"ccfast, 5 steps, mean of {samples}", lambda y: mean(default, y, samples)
    for name, rival in RIVALS.items():
        found = chosen[str(denoiser.name)][task][name]
        solver = rival.candidates(STEPS, 0.0, math.prod(operator.shape))[found["place"]]
        sampler = ccfast.Sampler(denoiser, operator, solver, STEPS, found["start"], found["end"])
        yield f"{name}, {STEPS} steps", lambda y, sampler=sampler: sampler(y, seed=0)


def mean(sampler: ccfast.Sampler, y: Tensor, samples: int) -> Tensor:
    """The mean of so many samples, which estimates the posterior mean."""
    return torch.stack(list(sampler.sample(y, samples, seed=0))).mean(0)
