"""Step coefficients of the conjugate integrator for lam != 0, with eps frozen (VP, VE, EDM); B = ln(1 + rho^2)."""

from __future__ import annotations

import numpy as np

from ...schedules import Array
from .._grid import Grid, Integrals
from .._quadrature import integrate

__all__ = ["general", "path_std", "relaxation"]


def relaxation(grid: Grid, w: float) -> Array:
    """Exponent of the step on the range of P: kappa = 1 - exp(-relaxation)."""
    return w * (grid.clock - grid.clock_to) / 2


def general(grid: Grid, w: float, lam: float) -> Integrals:
    """All coefficients for any lam: the integrating factor is e^{lam t}/mu, times e^{-wB/2} on the range of P."""
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
    return Integrals(a_null, a_null * np.exp(-relaxation(grid, w)), b_null, b_range, c, d_null, d_range)


def path_std(grid: Grid, rho: Array) -> Array:
    """sigma as a function of rho."""
    return rho / np.sqrt(1.0 + rho * rho) if grid.schedule.unit_variance else rho
