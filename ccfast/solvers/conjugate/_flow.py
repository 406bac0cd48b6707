"""Step coefficients of the conjugate integrator for lam != 0, with the velocity frozen (Flow)."""

from __future__ import annotations

import numpy as np

from ...schedules import Array
from .._grid import Grid, Integrals
from .._quadrature import integrate

__all__ = ["general", "relaxation"]


def relaxation(grid: Grid, w: float) -> Array:
    """Exponent of the step on the range of P: kappa = 1 - exp(-relaxation)."""
    return w * (rate(grid.t_to) - rate(grid.t))


def rate(t: Array) -> Array:
    """Integral of t (1 - t) from 0."""
    return t * t / 2.0 - t**3 / 3.0


def general(grid: Grid, w: float, lam: float) -> Integrals:
    """All coefficients for any lam: the integrating factor is e^{lam t}, times e^{relaxation} on the range of P."""
    step = grid.t_to - grid.t
    a_null = np.exp(-lam * step) * (1.0 + lam * step)

    def integrals(k: int) -> Array:
        def kernels(s: Array) -> Array:
            shift = np.exp(lam * (s - grid.t_to[k]))
            decay = shift * np.exp(w * (rate(s) - rate(grid.t_to[k])))
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
    return Integrals(a_null, a_null * np.exp(-relaxation(grid, w)), b_null, b_range, c, d_null, d_range)
