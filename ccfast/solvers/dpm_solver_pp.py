"""DPM-Solver++ (Lu, Zhou, Bao, Chen, Li, Zhu, arXiv 2211.01095): multistep in lambda = ln(mu/sigma), unconditional."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..engine.plan import Step
from ..operators import Operator
from ._multistep import add_estimates, decaying, lagrange, lambdas, usable_orders
from .solver import Grid, Solver

__all__ = ["DPMSolverPP"]


@dataclass(frozen=True)
class DPMSolverPP(Solver):
    """With D_j the estimate x0hat of j steps ago, h = lambda' - lambda and r_j = h_j/h for the step j steps ago:

        1    x' = (sigma'/sigma) x - mu' phi1 D0                               phi1 = exp(-h) - 1
        2M   1  - mu' phi1 Delta/2                                             Delta = (D0 - D1)/r_1
        3M   1  + mu' int_0^h exp(u - h) (p(u) - D0) du                        p the parabola through D0, D1, D2
        SDE  (sigma'/sigma) exp(-h) x + mu' (1 - exp(-2h)) (D0 + Delta/2) + sigma' sqrt(1 - exp(-2h)) z

    The integral is mu' phi2 D' - mu' phi3 D'' with D'' = 2 (Delta - Delta_1)/(r_1 + r_2); the public code leaves out
    that 2 and is of second order. Order 1 is DDIM, its SDE DDIM(eta=1). The first steps are of lower order, and a step
    to sigma' = 0, where h is infinite, of order 1. Blind to the measurement after the start, as DDIM.

    Args:
        order: 1, 2 or 3.
        sde: sample the reverse SDE instead of the ODE; order 1 or 2.
    """

    order: int = 2
    sde: bool = False

    takes_noise = True
    needs_singular_values = False

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise ValueError(f"order: must be 1, 2 or 3, got {self.order!r}")
        if self.sde and self.order == 3:
            raise ValueError(f"order: must be 1 or 2 with sde=True, got {self.order!r}")

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        knots, orders = lambdas(grid), usable_orders(grid, self.order)
        weights = np.zeros((self.order, len(orders)))
        for k in np.flatnonzero(orders > 1):
            h, nodes = knots[k + 1] - knots[k], knots[k - np.arange(orders[k])]
            if orders[k] == 2:
                factor = np.expm1(-2.0 * h) if self.sde else np.expm1(-h)
                weights[1, k] = 0.5 * factor * h / (nodes[0] - nodes[1])
            else:
                weights[:, k] = decaying(h, lambda u, nodes=nodes: lagrange(nodes, nodes[0] + u))
            weights[0, k] = -weights[1:, k].sum()
        rows = grid.ddim(grid.ddim_noise(1.0 if self.sde else 0.0))
        return add_estimates(rows, grid, grid.mu_to * weights).steps()
