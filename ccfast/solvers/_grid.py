"""The numbers of a time grid that solvers write their rows with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..denoiser import Denoiser
from ..schedules import Array, Schedule
from ._rows import Rows

__all__ = ["Grid", "Integrals", "grid_of"]


@dataclass(frozen=True)
class Grid:
    """Every number of a time grid that a solver needs, as arrays over the steps.

    A name with ``_to`` is at the end of the step, the others at its start. x0hat = p x + q F, eps = e x + f F, and the
    quantity that a conjugate step freezes is alpha x + beta F: eps, or for the flow the velocity x0hat - eps.
    """

    schedule: Schedule
    times: Array
    t: Array
    t_to: Array
    mu: Array
    mu_to: Array
    sigma: Array
    sigma_to: Array
    clock: Array
    clock_to: Array
    network_times: Array
    c_in: Array
    p: Array
    q: Array
    e: Array
    f: Array
    alpha: Array
    beta: Array
    noise_std: float = 0.0

    def rows(self) -> Rows:
        """Rows without terms."""
        return Rows(self.t, self.network_times, self.c_in, self.p, self.q)

    def ddim(self, noise: Array | float = 0.0) -> Rows:
        """Rows of mu' x0hat + sqrt(sigma'^2 - noise^2) eps + noise z.

        Without noise that is the exact step of the unconditional ODE with the frozen quantity held constant.
        """
        direction = np.sqrt(np.maximum(self.sigma_to**2 - np.square(noise), 0.0))
        rows = self.rows().add("x", self.mu_to * self.p + direction * self.e)
        return rows.add("F", self.mu_to * self.q + direction * self.f).add("z", noise)

    def shortened(self, fraction: float) -> tuple[Grid, Array]:
        """Steps that end at this fraction of rho', and what their x' is multiplied with to have the mean mu' again.

        Noise of variance (1 - fraction^2) sigma'^2 then makes it a state of the schedule.
        """
        if self.schedule.frozen != "velocity":
            return replace(self, sigma_to=fraction * self.sigma_to), np.ones_like(self.t)
        rho_to = fraction * self.sigma_to / self.mu_to  # mu + sigma stays 1.
        return replace(self, mu_to=1.0 / (1.0 + rho_to), sigma_to=rho_to / (1.0 + rho_to)), self.mu_to * (1.0 + rho_to)

    @property
    def data_scale(self) -> Array:
        """Change of x' with x0hat while the frozen quantity stays: mu' with eps frozen, 1 with the velocity frozen."""
        return np.ones_like(self.t) if self.schedule.frozen == "velocity" else self.mu_to

    def ddim_noise(self, eta: float) -> Array:
        """Standard deviation eta sigma' sqrt(1 - rho'^2/rho^2) of DDIM's fresh noise (arXiv 2010.02502, any path)."""
        rho, rho_to = self.schedule.rho(self.t), self.schedule.rho(self.t_to)
        return eta * self.sigma_to * np.sqrt(1.0 - np.square(rho_to / rho))


def grid_of(denoiser: Denoiser, times: Array, noise_std: float = 0.0) -> Grid:
    """What a solver may use of a denoiser on a grid of times."""
    schedule = denoiser.schedule
    mu, sigma, clock = schedule.mean(times), schedule.std(times), schedule.clock(times)
    c_in, p, q, e, f = denoiser.coefficients(times[:-1])
    velocity = schedule.frozen == "velocity"
    return Grid(
        schedule,
        times,
        t=times[:-1],
        t_to=times[1:],
        mu=mu[:-1],
        mu_to=mu[1:],
        sigma=sigma[:-1],
        sigma_to=sigma[1:],
        clock=clock[:-1],
        clock_to=clock[1:],
        network_times=denoiser.network_times(times[:-1]),
        c_in=c_in,
        p=p,
        q=q,
        e=e,
        f=f,
        alpha=p - e if velocity else e,
        beta=q - f if velocity else f,
        noise_std=noise_std,
    )


class Integrals(NamedTuple):
    """x' = a x + b (frozen quantity) + d g + c ybar: arrays over the steps, on the null space and on the range of P."""

    a_null: Array
    a_range: Array
    b_null: Array
    b_range: Array
    c: Array
    d_null: Array
    d_range: Array
