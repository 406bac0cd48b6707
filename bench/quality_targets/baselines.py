"""What a five-step sample is compared with: H+ y, fills and filters without a prior, and samplers with the same."""

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
"""Network evaluations of the samplers compared with."""
TUNED = RESULTS / "tuned_baselines.json"
"""Their parameters, chosen on training photographs by ``bench.quality_targets.tune_baselines``."""

SOLVERS: dict[str, Callable[[dict], Solver]] = {
    "PiGDM": lambda chosen: PiGDM(chosen["w"]),
    "DDNM": lambda _: DDNM(eta=0.0),
}

Method = Callable[[Tensor], Tensor]


def harmonic_fill(y: Tensor, mask: Tensor, sweeps: int = 4000) -> Tensor:
    """Hidden pixels replaced by the solution of Laplace's equation, by Jacobi sweeps; ``mask`` 1 = observed."""
    x, mask = y.clone(), mask.to(y.dtype)
    for _ in range(sweeps):
        padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        mean = (padded[..., 1:-1, 2:] + padded[..., 1:-1, :-2] + padded[..., 2:, 1:-1] + padded[..., :-2, 1:-1]) / 4
        x = mask * y + (1 - mask) * mean
    return x


def wiener(operator: Operator, y: Tensor, ratio: float) -> Tensor:
    """V s/(s^2 + ratio) U^T y, ``ratio`` the power of the noise over that of the signal, one for all frequencies."""
    s = operator.singular_values.to(y)
    return operator.lift(operator.encode(y) * (s.square() / (s.square() + ratio)))


def methods(denoiser: ccfast.Denoiser, task: str, operator: Operator, samples: int) -> Iterator[tuple[str, Method]]:
    """Name and function of the measurement, of everything that is compared on a task."""
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
    """Of that many samples, which estimates the posterior mean."""
    return torch.stack(list(sampler.sample(y, samples, seed=0))).mean(0)
