"""DDIM (Song, Meng, Ermon, arXiv 2010.02502): the unconditional sampler, blind to the measurement after the start."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..engine.plan import Step
from ..operators import Operator
from .solver import Grid, Solver, check_fraction

__all__ = ["DDIM"]


@dataclass(frozen=True)
class DDIM(Solver):
    """x' = mu' x0hat + sqrt(sigma'^2 - s^2) eps + s z,   s = eta sigma' sqrt(1 - rho'^2/rho^2).

    Noise in the measurement is known to the initial state alone.

    Args:
        eta: 0 deterministic (the probability-flow ODE to first order), 1 ancestral sampling.
    """

    eta: float = 0.0

    takes_noise = True
    needs_singular_values = False
    takes_decoded = True

    def __post_init__(self) -> None:
        check_fraction("eta", self.eta)

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        noise = grid.ddim_noise(self.eta)
        steps = grid.ddim(noise).steps()
        # A change d of x0hat alone moves x' by mu' d, and F' = F + d/clip_q by (mu' q + direction f) d/clip_q.
        direction = np.sqrt(np.maximum(grid.sigma_to**2 - np.square(noise), 0.0))
        with np.errstate(invalid="ignore"):
            clip_q = grid.q + direction * grid.f / grid.mu_to
        return tuple(replace(step, clip_q=q) for step, q in zip(steps, clip_q.tolist(), strict=True))
