"""The Solver: turns a denoiser, an operator and a time grid into a Plan. It owns no tensors and no loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from ..denoiser import Denoiser
from ..engine.elements import check_elements
from ..engine.fields import Fields
from ..engine.plan import Auxiliary, Plan, Reduction, Residual
from ..operators import Operator
from ..schedules import Array, Schedule

__all__ = ["Grid", "Integrals", "Solver", "check_fraction", "check_weight"]


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
    p: Array
    q: Array
    e: Array
    f: Array
    alpha: Array
    beta: Array
    noise_std: float = 0.0

    def ddim(self, noise: Array | float = 0.0) -> dict[str, Array]:
        """mu' x0hat + sqrt(sigma'^2 - noise^2) eps + noise z, in terms of x, F and z.

        Deterministic (noise = 0) it is the exact step of the unconditional ODE with the frozen quantity held constant.
        """
        direction = np.sqrt(np.maximum(self.sigma_to**2 - np.square(noise), 0.0))
        return {
            "x": self.mu_to * self.p + direction * self.e,
            "F": self.mu_to * self.q + direction * self.f,
            "z": np.broadcast_to(noise, self.t.shape),
        }

    def shortened(self, fraction: float) -> tuple[Grid, Array]:
        """Steps that end at this fraction of rho', and what their x' is multiplied with to have the mean mu' again.

        Noise of variance (1 - fraction^2) sigma'^2 then makes it a state of the schedule.
        """
        if self.schedule.frozen != "velocity":
            return replace(self, sigma_to=fraction * self.sigma_to), np.ones_like(self.t)
        rho_to = fraction * self.sigma_to / self.mu_to  # mu + sigma stays 1
        return replace(self, mu_to=1.0 / (1.0 + rho_to), sigma_to=rho_to / (1.0 + rho_to)), self.mu_to * (1.0 + rho_to)

    @property
    def data_scale(self) -> Array:
        """Change of x' with x0hat while the frozen quantity stays: mu' with eps frozen, 1 with the velocity frozen."""
        return np.ones_like(self.t) if self.schedule.frozen == "velocity" else self.mu_to

    def ddim_noise(self, eta: float) -> Array:
        """Standard deviation eta sigma' sqrt(1 - rho'^2/rho^2) of DDIM's fresh noise (arXiv 2010.02502, any path)."""
        rho, rho_to = self.schedule.rho(self.t), self.schedule.rho(self.t_to)
        return eta * self.sigma_to * np.sqrt(1.0 - np.square(rho_to / rho))


class Integrals(NamedTuple):
    """x' = a x + b (frozen quantity) + d g + c ybar: arrays over the steps, on the null space and on the range of P."""

    a_null: Array
    a_range: Array
    b_null: Array
    b_range: Array
    c: Array
    d_null: Array
    d_range: Array


class Solver(ABC):
    """Writes the table of a sampler. Members are small immutable objects; ``repr`` shows their parameters.

    Attributes:
        takes_noise: whether a measurement may be noisy (``grid.noise_std > 0``).
        needs_singular_values: whether it then needs those of the operator.
        product: how the plan takes h, a name of ``ccfast.engine.jacobian.PRODUCTS``.
    """

    takes_noise: ClassVar[bool] = False
    needs_singular_values: ClassVar[bool] = True
    product = "reverse"

    @abstractmethod
    def update(self, grid: Grid, operator: Operator) -> dict[str, Array]:
        """The update coefficients: an array over the steps for every term of ``ccfast.engine.plan`` that is used."""

    def elements(self, grid: Grid, operator: Operator) -> Mapping[str, Array]:
        """Coefficients of every element of the image, by term: as ``engine.plan.Plan.elements``; {}: there are none."""
        return {}

    def fields(self, grid: Grid, operator: Operator) -> Fields | None:
        """Coefficients over the singular values; None: there are none."""
        return None

    def reduction(self, grid: Grid) -> Reduction | None:
        """Coefficients from dot products of every image; None: there are none."""
        return None

    def residual(self, grid: Grid) -> Residual | None:
        """Another rule for r; None: H+ y - P x0hat."""
        return None

    def auxiliary(self, grid: Grid) -> Auxiliary | None:
        """A rule for the register u; None: there is none."""
        return None

    def inverse(self, denoiser: Denoiser, times: Array) -> Plan:
        """The plan that takes the last state back to the first two; ValueError where there is none."""
        raise ValueError(f"invert: {self!r} has no exact inverse; BDIA() has")

    def plan(self, denoiser: Denoiser, operator: Operator, times: Array, noise_std: float = 0.0) -> Plan:
        """The table for a grid of times that ``Schedule.check_times`` has passed."""
        check_weight("noise_std", noise_std)
        if noise_std and not self.takes_noise:
            raise ValueError(
                f"noise_std: {self!r} handles noiseless measurements only, so it must be 0, got {noise_std}; "
                "Conjugate, PiGDM, DDRM, DiffPIR, DDS and DPS take noise"
            )
        if noise_std and self.needs_singular_values and operator.kind == "krylov":
            raise ValueError(
                f"noise_std: {self!r} needs the singular values of the operator, which {operator!r} does not have, so "
                f"it must be 0, got {noise_std}; DDS and DPS take noise without them"
            )
        grid = self.grid(denoiser, times, noise_std)
        return Plan(
            repr(self),
            times.copy(),
            denoiser.schedule.mean(times),
            denoiser.schedule.std(times),
            denoiser.network_times(times[:-1]),
            denoiser.coefficients(times[:-1]).c_in,
            grid.p.copy(),
            grid.q.copy(),
            self.update(grid, operator),
            self.fields(grid, operator),
            self.reduction(grid),
            self.product,
            noise_std,
            self.residual(grid),
            self.auxiliary(grid),
            check_elements(self.elements(grid, operator), operator),
        )

    def grid(self, denoiser: Denoiser, times: Array, noise_std: float = 0.0) -> Grid:
        """What a solver may use of a denoiser on a grid of times."""
        schedule = denoiser.schedule
        mu, sigma, clock = schedule.mean(times), schedule.std(times), schedule.clock(times)
        _, p, q, e, f = denoiser.coefficients(times[:-1])
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
            p=p,
            q=q,
            e=e,
            f=f,
            alpha=p - e if velocity else e,
            beta=q - f if velocity else f,
            noise_std=noise_std,
        )


def check_weight(name: str, value: float) -> float:
    """A finite number >= 0, or ValueError."""
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: must be a finite number >= 0, got {value}")
    return float(value)


def check_fraction(name: str, value: float) -> float:
    """A number in [0, 1], or ValueError."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: must lie in [0, 1], got {value}")
    return float(value)
