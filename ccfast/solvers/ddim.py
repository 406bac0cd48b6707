"""DDIM (Song, Meng, Ermon, arXiv 2010.02502): the unconditional sampler, blind to the measurement after the start."""

from __future__ import annotations

from dataclasses import dataclass

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

    def __post_init__(self) -> None:
        check_fraction("eta", self.eta)

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        return grid.ddim(grid.ddim_noise(self.eta)).steps()
