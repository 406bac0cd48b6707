"""Heun's method (Karras, Aittala, Aila, Laine, arXiv 2206.00364, algorithm 1 without churn): unconditional, order 2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..denoiser import Denoiser
from ..engine.plan import Plan, Step
from ..operators import Operator
from ..schedules import Array, Schedule
from .solver import Grid, Solver

__all__ = ["Heun"]


@dataclass(frozen=True)
class Heun(Solver):
    """A step of DDIM to x', and a second evaluation there, whose mean with the first is taken instead:

        x'' = x' + (sigma' - mu' rho) (eps(x', t') - eps(x, t))/2            with the velocity frozen (Flow):
        x'' = x' + (t' - t) (v(x', t') - v(x, t))/2

    n steps take 2 n - 1 evaluations, and the plan has a row for each, so that its times repeat. As in the public code
    the step to sigma' = 0 is not corrected, and neither is one to a time at which the network may not be evaluated. The
    steps after the first state do not see the measurement, as those of DDIM.

    Raises:
        ValueError: The path begins at mu = 0 and is not Flow, so that the first step is infinitely long in rho.
    """

    takes_noise = True
    needs_singular_values = False
    takes_decoded = True

    def plan(self, denoiser: Denoiser, operator: Operator, times: Array, noise_std: float = 0.0) -> Plan:
        """The plan for a grid of times, or for the grid of such a plan, in which the corrected times repeat."""
        return super().plan(denoiser, operator, repeated(denoiser.schedule, times), noise_std)

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        if grid.mu[0] <= 0 and grid.schedule.frozen != "velocity":
            raise ValueError(f"start: {self!r} must start later than pure noise, got mu = 0 at t = {grid.t[0]:g}")
        corrects = grid.t == grid.t_to
        before = np.maximum(np.arange(len(grid.t)) - 1, 0)  # The step that a correction belongs to.
        # The factor of the frozen quantity in that step.
        if grid.schedule.frozen == "velocity":
            taken = grid.t - grid.t[before]
        else:
            taken = grid.sigma - grid.mu * (grid.sigma[before] / grid.mu[before])
        half, forward = np.where(corrects, 0.5 * taken, 0.0), np.where(corrects, 0.0, 1.0)
        rows = grid.rows()
        rows.add("x", np.where(corrects, 1.0, 0.0) + forward * (grid.mu_to * grid.p + grid.sigma_to * grid.e))
        rows.add("F", forward * (grid.mu_to * grid.q + grid.sigma_to * grid.f))
        rows.add("x", half * grid.alpha).add("F", half * grid.beta)
        rows.add("x", -half * grid.alpha[before], age=1).add("F", -half * grid.beta[before], age=1)
        return rows.steps()


def repeated(schedule: Schedule, times: Array) -> Array:
    """The times, of which those repeat that the network is evaluated at twice."""
    times = times[np.append(True, np.diff(times) != 0)]
    limit = schedule.least_noisy
    counts = np.ones(len(times), dtype=int)
    for k in range(1, len(times)):
        std = float(schedule.std(times[k]))
        allowed = std > 0 and (schedule.least_noisy_rule is None or limit is None or std >= float(schedule.std(limit)))
        counts[k] = 2 if allowed else 1
    return np.repeat(times, counts)
