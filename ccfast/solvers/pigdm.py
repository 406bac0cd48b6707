"""PiGDM (Song, Vahdat, Mardani, Kautz, ICLR 2023): guidance by the residual of the pseudo-inverse."""

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
    """x' = mu' x0hat + sqrt(sigma'^2 - s^2) eps + s z + c (d x0hat/dx)^T r,   r = H+ y - P x0hat,

    with DDIM's noise s = eta sigma' sqrt(1 - rho'^2/rho^2). ``PiGDM()`` is the sampler of the paper, which has no
    guidance weight: weight "constant" with w = 1 and eta = 1. ``PiGDM(w)`` is the guided ODE with weight w that the
    conjugate integrators (arXiv 2405.17673) are compared with: weight "ode" with eta = 0.

    weight "constant": c = w mu' mu, the published discrete sampler with r_t^2 = rho^2/(1 + rho^2), and eta = 1.
    weight "ode":      c = w (mu'/mu) mu sigma |d rho/dt| |t' - t|, Euler's step of the guided ODE whose guidance is
                       w (d x0hat/dx)^T r; on VP (mu'/mu) (w/2) beta(t) (t - t'), and without the factor mu'/mu for a
                       flow, whose velocity is held constant in x itself. It is explicit in w, and unstable where w
                       times the step in ln(1 + rho^2) exceeds about 4.

    Where the measurement is noisy every mode of r is weighted with r_t^2 s^2/(r_t^2 s^2 + sigma_y^2),
    r_t^2 = rho^2/(1 + rho^2): the paper's covariance of y given x_t is r_t^2 H H^T + sigma_y^2.

    Args:
        w: guidance weight, >= 0; None is 1.
        weight: "constant" or "ode"; None is "constant" without w, and "ode" where w is given.
        eta: 0 deterministic, 1 ancestral noise; None is 1 with weight "constant" and 0 with weight "ode".
    """

    w: float | None = None
    weight: str | None = None
    eta: float | None = None

    takes_noise = True

    def __post_init__(self) -> None:
        if self.w is not None:
            check_weight("w", self.w)
        if self.eta is not None:
            check_fraction("eta", self.eta)
        if self.weight not in (None, "ode", "constant"):
            raise ValueError(f"weight: must be 'ode' or 'constant', got {self.weight!r}")

    def _settled(self) -> tuple[float, bool, float]:
        """The weight, whether it is constant, and eta, with the defaults filled in."""
        constant = self.w is None if self.weight is None else self.weight == "constant"
        eta = float(constant) if self.eta is None else self.eta
        return 1.0 if self.w is None else self.w, constant, eta

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        w, constant, eta = self._settled()
        if constant:
            c = w * grid.mu_to * grid.mu
        else:
            if np.any(grid.mu <= 0):
                raise ValueError(
                    "PiGDM: weight 'ode' needs mu > 0 at every step; start later than pure noise, got mu = 0 at "
                    f"t = {grid.t[0]:g}"
                )
            schedule = grid.schedule
            # With ' the time derivative, mu sigma d rho is (mu sigma' - sigma mu') sigma dt / mu.
            speed = (
                grid.sigma
                / grid.mu
                * (grid.mu * schedule.std_derivative(grid.t) - grid.sigma * schedule.mean_derivative(grid.t))
            )
            c = w * np.abs(speed * (grid.t_to - grid.t))
            if schedule.frozen == "epsilon":
                c = c * grid.mu_to / grid.mu
        rows = grid.ddim(grid.ddim_noise(eta)).add("r", c * grid.p).add("h", c * grid.q)
        if grid.noise_std:
            # At a flow's start, where rho is infinite, r^2 is 1.
            r2, variance = (-np.expm1(-grid.clock))[:, None], grid.noise_std**2
            rows.weigh(SpectralTable(lambda s: {"weight": r2 * s**2 / (r2 * s**2 + variance)}, operator), "weight")
        return rows.steps()
