"""Conjugate integrators: C-PiGDM and C-PiGFM (Pandey, Yang, Mandt, NeurIPS 2024, arXiv 2405.17673) in closed form.

The linear part of the guided ODE is integrated exactly while eps (the velocity, for a flow) and its guidance term
g = (d eps/dx)^T r are held constant over the step. Written for x itself, never for the conjugate state, which loses
all digits in single precision as w grows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..operators import Operator
from ..schedules import Array
from .base import Grid, Solver, check_weight
from .quadrature import integrate

__all__ = ["Conjugate"]

STABILITY_LIMIT = 8.0 + 4.0 * np.sqrt(2.0)
"""Largest relaxation w (B - B') of a step at which ``jacobian="exact"`` is stable for a log-concave prior."""


@dataclass(frozen=True)
class Conjugate(Solver):
    """One step, noiseless, lam = 0, eps frozen (VP, VE, EDM); B = ln(1 + rho^2), a prime at the end of the step:

        x'    = mu' (x0hat + kappa r) + sigma' eps + d_N g + (d_P - d_N) P g
        kappa = 1 - exp(-w (B - B')/2)
        d_N   = -w mu' int_{rho'}^{rho} rho sigma/(1 + rho^2) d rho
        d_P   = the same with exp(-w (B(rho) - B')/2) under the integral

    and with the velocity frozen (Flow), g = (dv/dx)^T r:

        x'    = x0hat + kappa r - (1 - t') v + d_N g + (d_P - d_N) P g
        kappa = 1 - exp(-w int t (1 - t) dt),   d_N = w int t (1 - t)^2 dt,   d_P with exp(-w int_t^{t'}) inside

    lam != 0 adds the isotropic term of the paper (Euler treatment, as published); all coefficients are then integrals.

    Args:
        w: guidance weight >= 0. 0 is DDIM.
        lam: the paper's lambda, a decay rate per unit of schedule time (a shift of the conjugate basis).
        jacobian: how the guidance term g enters. "exact": the step above, two projections. "one_projection": d_P on
            all modes, one projection, stable for every w. "none": no g, no derivative of the network, a different ODE.
            "auto": exact, but one_projection in the steps where w (B - B') exceeds the stability limit 13.7
            (Flow: 2 w int t (1 - t) dt).
    """

    w: float = 15.0
    lam: float = 0.0
    jacobian: str = "exact"

    def __post_init__(self) -> None:
        check_weight("w", self.w)
        if not np.isfinite(self.lam):
            raise ValueError(f"lam: must be a finite number, got {self.lam}")
        if self.jacobian not in ("exact", "one_projection", "none", "auto"):
            raise ValueError(f"jacobian: must be 'exact', 'one_projection', 'none' or 'auto', got {self.jacobian!r}")

    def update(self, grid: Grid, operator: Operator) -> dict[str, Array]:
        flow = grid.schedule.frozen == "velocity"
        relaxation = flow_relaxation(grid, self.w) if flow else self.w * (grid.clock - grid.clock_to) / 2
        if self.lam:
            row = (flow_general if flow else diffusion_general)(grid, self.w, self.lam, relaxation)
            update = general_row(grid, *row[:5])
            d_null, d_range = row[5:]
        else:
            scale = np.ones_like(grid.t) if flow else grid.mu_to
            update = {**grid.ddim(), "r": -scale * np.expm1(-relaxation)}
            d_null, d_range = (flow_jacobian if flow else diffusion_jacobian)(grid, self.w)
        if self.jacobian == "none":
            return update
        if self.jacobian == "one_projection":
            d_null = d_range
        elif self.jacobian == "auto":
            d_null = np.where(2 * relaxation > STABILITY_LIMIT, d_range, d_null)
        # g = alpha r + beta h, and r = P r
        update["r"] = update.get("r", 0.0) + d_range * grid.alpha
        return {**update, "h": d_null * grid.beta, "Ph": (d_range - d_null) * grid.beta}


def general_row(grid: Grid, a_null: Array, a_range: Array, b_null: Array, b_range: Array, c: Array) -> dict[str, Array]:
    """x' = a x + b (alpha x + beta F) + c ybar with a, b of the null space, and of the range under P."""
    a, b = a_range - a_null, b_range - b_null
    return {
        "x": a_null + b_null * grid.alpha,
        "F": b_null * grid.beta,
        "Px": a + b * grid.alpha,
        "PF": b * grid.beta,
        "ybar": c,
    }


# ------------------------------------------------------------------------------------------------ eps frozen
def diffusion_jacobian(grid: Grid, w: float) -> tuple[Array, Array]:
    """d_N in closed form and d_P by quadrature in ln rho, where the integrand is analytic."""
    rho, rho_to = grid.schedule.rho(grid.t), grid.schedule.rho(grid.t_to)
    if grid.schedule.unit_variance:  # artanh(sigma) - sigma, with artanh(sigma) = B/2 + ln(1 + sigma)
        high, low = (b / 2 + np.log1p(s) - s for b, s in ((grid.clock, grid.sigma), (grid.clock_to, grid.sigma_to)))
    else:
        high, low = rho - np.arctan(rho), rho_to - np.arctan(rho_to)
    d_null = -w * grid.mu_to * (high - low)

    def d_range(k: int) -> float:
        def kernel(u: Array) -> Array:
            r = np.exp(u)
            clock = np.log1p(r * r)
            return np.exp(-0.5 * w * (clock - grid.clock_to[k])) * r * r * path_std(grid, r) / (1.0 + r * r)

        # the tail below rho = 1e-6 adds less than 1e-18, so that a step to sigma' = 0 is no special case
        low = max(rho_to[k], 1e-6 * min(1.0, rho[k]))
        return -w * grid.mu_to[k] * float(integrate(kernel, np.log(low), np.log(rho[k]), min(1.0, 20.0 / w)))

    return d_null, np.array([d_range(k) if w else 0.0 for k in range(len(grid.t))])


def diffusion_general(grid: Grid, w: float, lam: float, relaxation: Array) -> tuple[Array, ...]:
    """a_N, a_P, b_N, b_P, c, d_N, d_P for lam != 0 (ALGORITHM: integrating factor e^{lam t}/mu on the null space)."""
    rho, rho_to = grid.schedule.rho(grid.t), grid.schedule.rho(grid.t_to)
    step = grid.t - grid.t_to
    a_null = np.exp(lam * step) * (1.0 - lam * step) * grid.mu_to / grid.mu

    def integrals(k: int) -> Array:
        def kernels(u: Array) -> Array:
            r = np.exp(u)
            square = r * r
            shift = np.exp(lam * (grid.schedule.time(r) - grid.t_to[k]))
            decay = shift * np.exp(-0.5 * w * (np.log1p(square) - grid.clock_to[k]))
            pull = w * r / (1.0 + square)
            std = path_std(grid, r)
            return r * np.stack(
                [-shift, -decay * (1.0 - pull * r), decay * pull, -shift * pull * std, -decay * pull * std]
            )

        low = max(rho_to[k], 1e-16 * min(1.0, rho[k]))
        return grid.mu_to[k] * integrate(kernels, np.log(low), np.log(rho[k]), min(1.0, 20.0 / max(w, 1e-9)))

    b_null, b_range, c, d_null, d_range = np.array([integrals(k) for k in range(len(grid.t))]).T
    return a_null, a_null * np.exp(-relaxation), b_null, b_range, c, d_null, d_range


def path_std(grid: Grid, rho: Array) -> Array:
    """sigma as a function of rho."""
    return rho / np.sqrt(1.0 + rho * rho) if grid.schedule.unit_variance else rho


# ------------------------------------------------------------------------------------------------ velocity frozen
def flow_primitive(t: Array) -> Array:
    """Integral of t (1 - t) from 0."""
    return t * t / 2.0 - t**3 / 3.0


def flow_relaxation(grid: Grid, w: float) -> Array:
    return w * (flow_primitive(grid.t_to) - flow_primitive(grid.t))


def flow_jacobian(grid: Grid, w: float) -> tuple[Array, Array]:
    def primitive(t: Array) -> Array:
        return t * t / 2.0 - 2.0 * t**3 / 3.0 + t**4 / 4.0

    def d_range(k: int) -> float:
        def kernel(s: Array) -> Array:
            return w * s * (1.0 - s) ** 2 * np.exp(w * (flow_primitive(s) - flow_primitive(grid.t_to[k])))

        return float(integrate(kernel, grid.t[k], grid.t_to[k], 1.0, nodes=32))

    d_null = w * (primitive(grid.t_to) - primitive(grid.t))
    return d_null, np.array([d_range(k) for k in range(len(grid.t))])


def flow_general(grid: Grid, w: float, lam: float, relaxation: Array) -> tuple[Array, ...]:
    """a_N, a_P, b_N, b_P, c, d_N, d_P for lam != 0: integrating factor e^{lam t} on the null space."""
    step = grid.t_to - grid.t
    a_null = np.exp(-lam * step) * (1.0 + lam * step)

    def integrals(k: int) -> Array:
        def kernels(s: Array) -> Array:
            shift = np.exp(lam * (s - grid.t_to[k]))
            decay = shift * np.exp(w * (flow_primitive(s) - flow_primitive(grid.t_to[k])))
            pull = w * s * (1.0 - s)
            return np.stack(
                [
                    shift,
                    decay * (1.0 - pull * (1.0 - s)),
                    decay * pull,
                    shift * pull * (1.0 - s),
                    decay * pull * (1.0 - s),
                ]
            )

        return integrate(kernels, grid.t[k], grid.t_to[k], 1.0, nodes=32)

    b_null, b_range, c, d_null, d_range = np.array([integrals(k) for k in range(len(grid.t))]).T
    return a_null, a_null * np.exp(-relaxation), b_null, b_range, c, d_null, d_range
