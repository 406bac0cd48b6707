"""PiGDM (Song, Vahdat, Mardani, Kautz, ICLR 2023): guidance by the pseudo-inverse residual, integrated explicitly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..engine.plan import Step
from ..engine.spectrum import SpectralTable
from ..operators import Operator
from .solver import Grid, Solver, check_fraction, check_weight

__all__ = ["PiGDM"]


@dataclass(frozen=True)
class PiGDM(Solver):
    """x' = mu' x0hat + sqrt(sigma'^2 - s^2) eps + s z + c (d x0hat/dx)^T r,   r = H+ y - P x0hat.

    weight "ode":      c = w (mu'/mu) mu sigma |d rho/dt| |t' - t|, Euler's step of the guided ODE whose guidance is
                       w (d x0hat/dx)^T r; on VP (mu'/mu) (w/2) beta(t) (t - t'), and without the factor mu'/mu for a
                       flow, whose velocity is held constant in x itself.
    weight "constant": c = w mu' mu, the published discrete sampler with r_t^2 = sigma^2 (VP).

    Where the measurement is noisy every mode of r is weighted with r_t^2 s^2/(r_t^2 s^2 + sigma_y^2),
    r_t^2 = rho^2/(1 + rho^2): the paper's covariance of y given x_t is r_t^2 H H^T + sigma_y^2.

    Explicit in w: unstable where w times the step in ln(1 + rho^2) exceeds about 4.

    Args:
        w: guidance weight.
        weight: "ode" or "constant".
        eta: 0 deterministic, 1 ancestral noise.
    """

    w: float = 1.0
    weight: str = "ode"
    eta: float = 0.0

    takes_noise = True

    def __post_init__(self) -> None:
        check_weight("w", self.w)
        check_fraction("eta", self.eta)
        if self.weight not in ("ode", "constant"):
            raise ValueError(f"weight: must be 'ode' or 'constant', got {self.weight!r}")

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        if self.weight == "constant":
            c = self.w * grid.mu_to * grid.mu
        else:
            if np.any(grid.mu <= 0):
                raise ValueError("PiGDM: weight 'ode' needs mu > 0 at every step; start later than pure noise")
            schedule = grid.schedule
            # mu sigma d rho = (mu sigma' - sigma mu') sigma dt / mu, with ' the time derivative
            speed = (
                grid.sigma
                / grid.mu
                * (grid.mu * schedule.std_derivative(grid.t) - grid.sigma * schedule.mean_derivative(grid.t))
            )
            c = self.w * np.abs(speed * (grid.t_to - grid.t))
            if schedule.frozen == "epsilon":
                c = c * grid.mu_to / grid.mu
        rows = grid.ddim(grid.ddim_noise(self.eta)).add("r", c * grid.p).add("h", c * grid.q)
        if grid.noise_std:
            # r^2 of the flow's start, rho = infinity, is 1
            r2, variance = (-np.expm1(-grid.clock))[:, None], grid.noise_std**2
            rows.weigh(SpectralTable(lambda s: {"weight": r2 * s**2 / (r2 * s**2 + variance)}, operator), "weight")
        return rows.steps()
