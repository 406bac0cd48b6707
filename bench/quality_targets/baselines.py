"""The methods that a five-step sample is compared with: H+ y, fills and filters, and samplers with the same prior."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

import ccfast
from bench.quality_targets.scores import RESULTS
from ccfast.operators import Inpainting, Operator
from ccfast.solvers import DDNM, PiGDM, Solver

__all__ = ["SOLVERS", "STEPS", "TUNED", "harmonic_fill", "methods", "wiener"]

STEPS = 20
"""The number of network evaluations of the samplers that ours is compared with."""
TUNED = RESULTS / "tuned_baselines.json"
"""The file of their parameters, which ``bench.quality_targets.tune_baselines`` chooses on training photographs."""

SOLVERS: dict[str, Callable[[dict], Solver]] = {
    "PiGDM": lambda chosen: PiGDM(chosen["w"]),
    "DDNM": lambda _: DDNM(eta=0.0),
}

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
    for name, make in SOLVERS.items():
        parameters = chosen[str(denoiser.name)][task][name]
        sampler = ccfast.Sampler(denoiser, operator, make(parameters), steps=STEPS, start=parameters["start"])
        yield f"{name}, {STEPS} steps", lambda y, sampler=sampler: sampler(y, seed=0)


def mean(sampler: ccfast.Sampler, y: Tensor, samples: int) -> Tensor:
    """The mean of so many samples, which estimates the posterior mean."""
    return torch.stack(list(sampler.sample(y, samples, seed=0))).mean(0)
