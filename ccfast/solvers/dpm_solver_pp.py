"""DPM-Solver++ (Lu, Zhou, Bao, Chen, Li, Zhu, arXiv 2211.01095): multistep in lambda = ln(mu/sigma), unconditional."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..engine.plan import Step
from ..operators import Operator
from ._multistep import add_estimates, check_lower, decaying, lagrange, lambdas, usable_orders
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
    that 2 and is of second order (``curvature=0.5``). Order 1 is DDIM, and its SDE is DDIM(eta=1). The first steps are
    of lower order and limit the order of a whole run on the default grid to 2, and a step to sigma' = 0, where h is
    infinite, is of order 1. The steps after the first state do not see the measurement, as those of DDIM.

    Args:
        order: 1, 2 or 3.
        sde: sample the reverse SDE instead of the ODE; order 1 or 2.
        lower_order_final: a run of fewer than 15 steps takes at most one estimate in its last step, two in the step
            before, and so on, as the public schedulers do; False: the plain multistep method.
        curvature: the factor of phi3 D'' in steps of order 3. 1: the paper's; 0.5: the public code's, diffusers'
            ``solver_order=3`` among it.
    """

    order: int = 2
    sde: bool = False
    lower_order_final: bool = True
    curvature: float = 1.0

    takes_noise = True
    needs_singular_values = False
    takes_decoded = True

    def __post_init__(self) -> None:
        check_lower(self.lower_order_final)
        if self.order not in (1, 2, 3):
            raise ValueError(f"order: must be 1, 2 or 3, got {self.order!r}")
        if not (np.isfinite(self.curvature) and self.curvature >= 0):
            raise ValueError(f"curvature: must be a finite number >= 0, got {self.curvature!r}")
        if self.sde and self.order == 3:
            raise ValueError(f"order: must be 1 or 2 with sde=True, got {self.order!r}")

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        knots, orders = lambdas(grid), usable_orders(grid, self.order, self.lower_order_final)
        weights = np.zeros((self.order, len(orders)))
        for k in np.flatnonzero(orders > 1):
            h, nodes = knots[k + 1] - knots[k], knots[k - np.arange(orders[k])]
            if orders[k] == 2:
                factor = np.expm1(-2.0 * h) if self.sde else np.expm1(-h)
                weights[1, k] = 0.5 * factor * h / (nodes[0] - nodes[1])
            else:
                weights[:, k] = decaying(h, lambda u, nodes=nodes: lagrange(nodes, nodes[0] + u))
                if self.curvature != 1.0:
                    squares = [1.0 / np.prod(node - np.delete(nodes, j)) for j, node in enumerate(nodes)]
                    weights[:, k] -= (1.0 - self.curvature) * decaying(h, np.square) * np.array(squares)
            weights[0, k] = -weights[1:, k].sum()
        rows = grid.ddim(grid.ddim_noise(1.0 if self.sde else 0.0))
        return add_estimates(rows, grid, grid.mu_to * weights).steps()
