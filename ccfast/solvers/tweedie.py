"""Tweedie's formula (Robbins 1956; Efron, JASA 2011): the posterior mean of a picture that is seen with noise alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..denoiser import Denoiser
from ..engine.plan import Plan, Step
from ..operators import Denoising, Operator
from ..schedules import Array
from .solver import Grid, Solver, check_weight

__all__ = ["Tweedie"]


@dataclass(frozen=True)
class Tweedie(Solver):
    """x' = x0hat at the time whose rho = sigma/mu is the noise of the measurement: one evaluation.

    There mu y is a state of the path for y = x0 + noise_std n, so that x0hat = E[x0 | y] for a perfect network. Where
    the path has no such time the nearest is taken. The run begins at the mean (``start_noise=0``). That mean is
    shrunk as before all solvers, to mu y/(1 + noise_std^2); the network's input and p take the factor back.
    """

    takes_noise = True
    needs_singular_values = False

    def plan(self, denoiser: Denoiser, operator: Operator, times: Array, noise_std: float = 0.0) -> Plan:
        """The plan for a level of noise, which ends at the last of ``times`` and has its own first time.

        Raises:
            ValueError: The operator hides something.
        """
        check_weight("noise_std", noise_std)
        if not isinstance(operator, Denoising):
            raise ValueError(f"operator: must be a Denoising, got {operator!r}")
        schedule = denoiser.schedule
        levels = np.sort(schedule.rho(np.array(schedule.time_range, dtype=np.float64)))
        least = levels[0] if schedule.least_noisy is None else float(schedule.rho(schedule.least_noisy))
        start = float(schedule.time(np.clip(noise_std, least, levels[1])))
        return super().plan(denoiser, operator, np.array([start, times[-1]]), noise_std)

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        gain = 1.0 + grid.noise_std**2
        grid = replace(grid, c_in=gain * grid.c_in, p=gain * grid.p)
        return grid.rows().add("x", grid.p).add("F", grid.q).steps()
