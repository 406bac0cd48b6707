"""The samplers that are compared, and the six candidates of parameters that the sweep tries for each, at three starts.

Every sampler, ours included, gets the same number of tries, on data of its own, for every number of evaluations. The
published choice is among the candidates where there is one for our range of images and noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ccfast.solvers import DDNM, DDRM, DDS, DPS, Conjugate, DiffPIR, PiGDM, REDDiff, Solver

__all__ = ["BASELINES", "CONJUGATE", "STARTS", "Method", "conjugate"]

STARTS = (0.95, 0.6, 0.3)
"""The VP times of the first state, which is nearly pure noise, or one of two warm starts from H+ y."""


@dataclass(frozen=True)
class Method:
    """A sampler that is compared.

    Attributes:
        name: its name in tables.
        candidates: gives the solvers that the sweep tries, from (steps, noise_std, number of values of an image).
        vjp: whether a step takes a product with the network's Jacobian.
    """

    name: str
    candidates: Callable[[int, float, int], tuple[Solver, ...]]
    vjp: bool = False


def conjugate(
    weights: tuple[float | str, ...] = ("bayes", 2.0, 6.0, 15.0, 30.0, 60.0), **options: Any
) -> Callable[[int, float, int], tuple[Solver, ...]]:
    """Candidates of Conjugate. w = "bayes" samples a unit Gaussian prior exactly, and 15 is the paper's."""
    return lambda steps, noise, pixels: tuple(Conjugate(w, **options) for w in weights)


def pigdm(steps: int, noise: float, pixels: int) -> tuple[Solver, ...]:
    """Published: the constant weight 1 with ancestral noise; the explicit ODE is the rival of the conjugate papers."""
    return (
        PiGDM(1.0, "constant", eta=0.0),
        PiGDM(2.0, "constant", eta=1.0),
        PiGDM(1.0, "constant", eta=1.0),
        *(PiGDM(w, "ode", eta=eta) for w, eta in ((3.0, 1.0), (10.0, 0.0), (10.0, 1.0))),
    )


def ddrm(steps: int, noise: float, pixels: int) -> tuple[Solver, ...]:
    """Published: 0.85."""
    return tuple(DDRM(eta=eta) for eta in (0.3, 0.5, 0.7, 0.85, 0.95, 1.0))


def ddnm(steps: int, noise: float, pixels: int) -> tuple[Solver, ...]:
    """Published: 0.85."""
    return tuple(DDNM(eta=eta) for eta in (0.0, 0.5, 0.85, 0.3, 0.7, 1.0))


def dps(steps: int, noise: float, pixels: int) -> tuple[Solver, ...]:
    """zeta = k sqrt(values)/steps, since the sum of the steps is what moves a state; published: k = 2.3."""
    return tuple(DPS(zeta=k * math.sqrt(pixels) / steps) for k in (0.1, 0.25, 0.8, 2.5, 8.0, 25.0))


def diffpir(steps: int, noise: float, pixels: int) -> tuple[Solver, ...]:
    """Published: lam from 1 to 25, zeta from 0.1 to 1. Without noise lam does not matter."""
    if not noise:
        return tuple(DiffPIR(zeta=zeta) for zeta in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    return tuple(DiffPIR(lam, zeta) for lam in (1.0, 7.0, 25.0) for zeta in (0.3, 1.0))


def red_diff(steps: int, noise: float, pixels: int) -> tuple[Solver, ...]:
    """Published: rate 0.1 (0.5 for some tasks), weight 0.25."""
    return tuple(REDDiff(rate, weight) for rate in (0.1, 0.5) for weight in (0.05, 0.25, 1.0))


def dds(steps: int, noise: float, pixels: int) -> tuple[Solver, ...]:
    """Published: 5 iterations, eta 0.85, gamma 5 for MRI. gamma noise_std^2 is the variance of the prior's estimate."""
    if not noise:
        return tuple(DDS(iterations=m, eta=eta) for m in (5, 20) for eta in (0.3, 0.6, 0.85))
    return tuple(DDS(gamma=g / noise**2, eta=eta) for g in (0.01, 0.03, 0.1) for eta in (0.5, 0.85))


CONJUGATE: tuple[Method, ...] = (
    Method("Conjugate exact", conjugate(), vjp=True),
    Method("Conjugate one_projection", conjugate(jacobian="one_projection"), vjp=True),
    Method("Conjugate auto", conjugate(jacobian="auto"), vjp=True),
    Method("Conjugate none", conjugate(jacobian="none")),
    Method("Conjugate order 2", conjugate(order=2), vjp=True),
    Method("Conjugate eta 1", conjugate(eta=1.0), vjp=True),
    Method("Conjugate refresh 1", conjugate(jacobian="auto", refresh=1.0), vjp=True),
)
BASELINES: tuple[Method, ...] = (
    Method("PiGDM", pigdm, vjp=True),
    Method("DDRM", ddrm),
    Method("DDNM", ddnm),
    Method("DPS", dps, vjp=True),
    Method("DiffPIR", diffpir),
    Method("RED-diff", red_diff),
    Method("DDS", dds),
)
