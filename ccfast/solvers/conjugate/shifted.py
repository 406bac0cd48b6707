"""The conjugate integrator with the isotropic term lam of the paper, a shift of the conjugate basis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...engine.plan import Step
from ...operators import Operator
from ..solver import Grid, Solver
from . import _diffusion, _flow
from ._modes import STABILITY_LIMIT, is_flow

__all__ = ["ShiftedConjugate"]


@dataclass(frozen=True)
class ShiftedConjugate(Solver):
    """What ``Conjugate(w, lam=lam)`` runs; its arguments are checked there.

        x' = a x + b n + c ybar + d_N g + (d_P - d_N) P g,    n the frozen quantity, g = (dn/dx)^T r

    with a and b of the null space and, on the range of P, of their own: all are integrals with the factor
    exp(lam (t - t')), and the term in lam is treated by Euler's method, as published. For noiseless measurements.
    """

    w: float
    lam: float
    jacobian: str = "exact"
    product: str = "reverse"

    takes_noise = True  # A noisy run is refused below, in a sentence about ``lam``.

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        if grid.noise_std:
            raise ValueError(
                f"lam: must be 0 where the measurement is noisy, got {self.lam} with noise_std={grid.noise_std}"
            )
        if grid.mu[0] <= 0 and not is_flow(grid):
            raise ValueError(
                f"start: a run with lam={self.lam} must start later than pure noise, got mu = 0 at t = {grid.t[0]:g}; "
                "its decay has no limit there"
            )
        path = _flow if is_flow(grid) else _diffusion
        row = path.general(grid, self.w, self.lam)
        rows = grid.rows().add("x", row.a_null + row.b_null * grid.alpha).add("F", row.b_null * grid.beta)
        a, b = row.a_range - row.a_null, row.b_range - row.b_null
        rows.add("x", a + b * grid.alpha, projected=True).add("F", b * grid.beta, projected=True).add("ybar", row.c)
        if self.jacobian != "none":
            beyond = 2 * path.relaxation(grid, self.w) > STABILITY_LIMIT[1]
            shared = beyond & (self.jacobian == "auto") | (self.jacobian == "one_projection")
            d_null = np.where(shared, row.d_range, row.d_null)
            # The product is g = alpha r + beta h, and r = P r.
            rows.add("r", row.d_range * grid.alpha).add("h", d_null * grid.beta)
            rows.add("h", (row.d_range - d_null) * grid.beta, projected=True)
        return rows.steps()
