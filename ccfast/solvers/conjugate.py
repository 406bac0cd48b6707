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
from . import conjugate_diffusion, conjugate_flow
from .base import Grid, Integrals, Solver, check_weight

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
        path = conjugate_flow if grid.schedule.frozen == "velocity" else conjugate_diffusion
        relaxation = path.relaxation(grid, self.w)
        if self.lam:
            row = path.general(grid, self.w, self.lam)
            update = general_row(grid, row)
            d_null, d_range = row.d_null, row.d_range
        else:
            update = {**grid.ddim(), "r": -grid.data_scale * np.expm1(-relaxation)}
            d_null, d_range = path.jacobian(grid, self.w)
        if self.jacobian == "none":
            return update
        if self.jacobian == "one_projection":
            d_null = d_range
        elif self.jacobian == "auto":
            d_null = np.where(2 * relaxation > STABILITY_LIMIT, d_range, d_null)
        # g = alpha r + beta h, and r = P r
        update["r"] = update.get("r", 0.0) + d_range * grid.alpha
        return {**update, "h": d_null * grid.beta, "Ph": (d_range - d_null) * grid.beta}


def general_row(grid: Grid, row: Integrals) -> dict[str, Array]:
    """x' = a x + b (alpha x + beta F) + c ybar, with a and b of the null space and, under P, of the range."""
    a, b = row.a_range - row.a_null, row.b_range - row.b_null
    return {
        "x": row.a_null + row.b_null * grid.alpha,
        "F": row.b_null * grid.beta,
        "Px": a + b * grid.alpha,
        "PF": b * grid.beta,
        "ybar": row.c,
    }
