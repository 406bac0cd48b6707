"""DEIS (Zhang, Chen, arXiv 2204.13902): eps extrapolated by a polynomial in t, rho or ln rho, integrated exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..engine.plan import Step
from ..operators import Operator
from ..schedules import Array
from ._multistep import FEW, add_noises, check_lower, lagrange
from ._quadrature import integrate
from .solver import Grid, Solver

__all__ = ["DEIS"]


@dataclass(frozen=True)
class DEIS(Solver):
    """x' = (mu'/mu) x + sum_j C_j eps_j,   C_j = mu' int_rho^rho' l_j d rho,   j = 0 .. order

    with eps_j of j steps ago and l_j the Lagrange polynomials through the last order + 1 times in t (tAB), rho (rhoAB)
    or ln rho, by Gauss-Legendre in ln rho. Order 0 is DDIM. The local error of order k is that of a method of order
    k + 1, and so is the error of a whole run whose first steps, which are of lower order, are short; on the default
    grid those steps limit it to order 2. The steps after the first state do not see the measurement, as those of DDIM.

    Args:
        order: degree of the polynomial, 0 to 3.
        basis: "t", "rho" or "log_rho"; diffusers has the last, with ``solver_order`` = order + 1.
        lower_order_final: a run of fewer than 15 steps takes at most one estimate in its last step, two in the step
            before, and so on, as the public schedulers do; False: the plain multistep method.
    """

    order: int = 3
    basis: str = "t"
    lower_order_final: bool = True

    takes_noise = True
    needs_singular_values = False
    takes_decoded = True

    def __post_init__(self) -> None:
        check_lower(self.lower_order_final)
        if self.order not in (0, 1, 2, 3):
            raise ValueError(f"order: must be 0, 1, 2 or 3, got {self.order!r}")
        if self.basis not in ("t", "rho", "log_rho"):
            raise ValueError(f"basis: must be 't', 'rho' or 'log_rho', got {self.basis!r}")

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        schedule = grid.schedule
        rho = schedule.rho(grid.times)
        with np.errstate(divide="ignore"):
            knots = {"t": grid.times, "rho": rho, "log_rho": np.log(rho)}[self.basis]
        count = len(grid.t)
        logarithm = self.basis == "log_rho"
        lowered = self.lower_order_final and count < FEW
        weights = np.zeros((self.order + 1, count))
        # No polynomial in rho passes through the infinite rho of a start where mu = 0.
        first = int(self.basis != "t" and np.isinf(rho[0]))
        for k in range(count):
            estimates = min(k + 1 - first, self.order + 1, count - k if lowered else count)
            if estimates < 2:  # DDIM
                continue
            nodes = knots[k - np.arange(estimates)]
            # What is cut off where the step ends at rho = 0 is below the rounding error.
            low, high = np.log(max(rho[k + 1], 1e-17 * rho[k])), np.log(rho[k])

            def integrand(u: Array, nodes: Array = nodes) -> Array:
                at = np.exp(u)
                return lagrange(nodes, schedule.time(at) if self.basis == "t" else u if logarithm else at) * at

            weights[: len(nodes), k] = -integrate(integrand, low, high, panel=0.5)
        weights[0] = -weights[1:].sum(axis=0)  # This is what is added to DDIM, which takes mu' (rho' - rho) eps_0.
        return add_noises(grid.ddim(), grid, grid.mu_to * weights).steps()
