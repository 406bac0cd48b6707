"""BDIA (Zhang, Lewis, Kleijn, arXiv 2307.10829): an unconditional sampler that can be run backwards exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..denoiser import Denoiser
from ..engine.plan import Plan, Step
from ..operators import Operator
from ..schedules import Array
from ._grid import grid_of
from ._rows import Rows
from .solver import Grid, Solver

__all__ = ["BDIA"]

LOST_BITS = 20.0
"""Bits that a run backwards may lose: N log2(1/gamma) of the 24 of single precision."""


@dataclass(frozen=True)
class BDIA(Solver):
    """Bidirectional integration: with D(s|k) the DDIM step from (x_k, eps_k) to time t_s, forwards or backwards,

        x_{k+1} = gamma (x_{k-1} - D(k-1|k)) + D(k+1|k),        x_1 = D(1|0)

    which is solved for x_{k-1} as easily as for x_{k+1}: ``Sampler.invert``. The steps after the
    first state do not see the measurement, as those of DDIM.

    Args:
        gamma: in [0, 1]. 1: exactly invertible and of second order; below 1 of first order, and a run of N steps
            backwards multiplies rounding errors by gamma^-N; 0 is DDIM.
    """

    gamma: float = 1.0

    takes_noise = True
    needs_singular_values = False
    takes_decoded = True

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma: must lie in [0, 1], got {self.gamma}")

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        x, F = self._forms(grid)
        before = np.where(np.arange(len(x)) > 0, self.gamma, 0.0)
        return grid.rows().add("x", x).add("F", F).add("x", before, age=1).steps()

    def _forms(self, grid: Grid) -> tuple[Array, Array]:
        """Coefficients of x_k and F_k in D(k+1|k) - gamma D(k-1|k), without the second term at k = 0."""
        mu, sigma = grid.mu_to, grid.sigma_to
        ahead_x, ahead_F = mu * grid.p + sigma * grid.e, mu * grid.q + sigma * grid.f
        # The term of D(k-1|k) is mu'' x0hat + sigma'' eps at the time before.
        mu, sigma = grid.schedule.mean(grid.times), grid.schedule.std(grid.times)
        mu, sigma = (self.gamma * np.concatenate([[0.0], column[:-2]]) for column in (mu, sigma))
        return ahead_x - mu * grid.p - sigma * grid.e, ahead_F - mu * grid.q - sigma * grid.f

    def inverse(self, denoiser: Denoiser, times: Array) -> Plan:
        """Steps N, ..., 1 of the sampler solved for x_{k-1}, after one that chooses x_{N-1}.

        That one is DDIM inverted with eps at (x_N, t_{N-1}); whatever it chooses, the rest is exact.
        """
        steps = len(times) - 1
        if self.gamma == 0 or steps * np.log2(1 / self.gamma) > LOST_BITS:
            raise ValueError(
                f"invert: {self!r} loses all digits of single precision in {steps} steps; gamma must be at least "
                f"{2 ** (-LOST_BITS / steps):.3f}"
            )
        grid = grid_of(denoiser, times)
        x, F = self._forms(grid)
        last = grid.mu[-1] / grid.mu_to[-1]
        slope = grid.sigma[-1] - last * grid.sigma_to[-1]
        back = np.arange(steps - 1, 0, -1)
        order = np.concatenate([[steps - 1], back])
        heads = (grid.t, grid.network_times, grid.c_in, grid.p, grid.q)
        rows = Rows(*(column[order] for column in heads))
        rows.add("x", np.concatenate([[last + slope * grid.e[-1]], -x[back] / self.gamma]))
        rows.add("F", np.concatenate([[slope * grid.f[-1]], -F[back] / self.gamma]))
        rows.add("x", np.concatenate([[0.0], np.full(steps - 1, 1.0 / self.gamma)]), age=1)
        reverse, schedule = times[::-1].copy(), denoiser.schedule
        return Plan(f"{self!r} backwards", rows.steps(), reverse, schedule.mean(reverse), schedule.std(reverse))
