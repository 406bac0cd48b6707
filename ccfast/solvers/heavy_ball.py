"""Generalised heavy-ball momentum (Wizadwongsa et al., arXiv 2307.11118) for multistep solvers of eps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..engine.plan import Step
from ..operators import Operator
from ..schedules import Array
from ._multistep import add_noises
from .solver import Grid, Solver

__all__ = ["HeavyBall"]

ADAMS_BASHFORTH = ([1.0], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24])
"""Weights of eps_n, eps_{n-1}, ... of the methods of orders 1 to 4 on equal steps."""


def mixed(steps: int, b: float) -> list[float]:
    """The weights m of GHVB with ``steps`` estimates, which are those of Adams-Bashforth for b = 1."""
    return [
        [b],
        [(2 + b) / 2, (b - 2) / 2],
        [(18 + 5 * b) / 12, (8 * b - 24) / 12, (6 - b) / 12],
        [(46 + 9 * b) / 24, (19 * b - 78) / 24, (42 - 5 * b) / 24, (b - 10) / 24],
    ][steps - 1]


@dataclass(frozen=True)
class HeavyBall(Solver):
    """x'/mu' = x/mu + (rho' - rho) d_n,   with the slope d_n of z = x/mu over rho a mean with that of the last step:

        "ghvb"   d_n = (1 - b) d_{n-1} + sum_{j<k} m_j eps_{n-j},        k = ceil(order), b = order - k + 1
        "hb"     d_n = (1 - b) d_{n-1} + b sum_{j<k} c_j eps_{n-j},      k = order, b = beta

    where c are the weights of Adams-Bashforth of order k and m those of GHVB. d_{n-1} is (z - z1) / (rho - rho1) of the
    last step, so that the velocity of the published loops needs no register. Their coefficients assume equal steps in
    rho, and are kept on other grids. The smaller b, the longer the steps on which it remains stable, and the lower the
    order: with whole orders "ghvb" is iPNDM, at order 1 DDIM; with others its error falls with a power between the
    whole ones until that of the first step, a single estimate, limits it to 2. "hb" is of order 1 unless beta = 1. The
    steps after the first state do not see the measurement, as those of DDIM.

    Args:
        order: in (0, 4]; a whole number for "hb".
        beta: in (0, 1], of "hb" alone: the part of the new estimates in the slope.
        kind: "ghvb" or "hb".
    """

    order: float = 2.5
    beta: float = 1.0
    kind: str = "ghvb"

    takes_noise = True
    needs_singular_values = False
    takes_decoded = True

    def __post_init__(self) -> None:
        if self.kind not in ("ghvb", "hb"):
            raise ValueError(f"kind: must be 'ghvb' or 'hb', got {self.kind!r}")
        if not 0 < self.order <= 4:
            raise ValueError(f"order: must lie in (0, 4], got {self.order!r}")
        if not 0 < self.beta <= 1:
            raise ValueError(f"beta: must lie in (0, 1], got {self.beta!r}")
        if self.kind == "hb" and self.order != int(self.order):
            raise ValueError(f"order: must be 1, 2, 3 or 4 for kind 'hb', got {self.order!r}")
        if self.kind == "ghvb" and self.beta != 1:
            raise ValueError(
                f"beta: belongs to kind 'hb'; 'ghvb' has that of its order, {self.order!r}, got {self.beta!r}"
            )

    @property
    def estimates(self) -> int:
        """The number k of estimates that a slope is made of."""
        return math.ceil(self.order)

    @property
    def share(self) -> float:
        """The part b of the slope that is new."""
        return self.beta if self.kind == "hb" else self.order - self.estimates + 1

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        count, b = len(grid.t), self.share
        rho = grid.schedule.rho(grid.times)
        weights, now, before = np.zeros((4, count)), np.zeros(count), np.zeros(count)
        for k in range(count):
            fresh = self.slope(k)
            weights[: len(fresh), k] = fresh
            if self.keeps_slope(k) and np.isinf(rho[k - 1]):
                weights[1, k] += 1 - b  # The slope from a start without mean is eps of that start.
            elif self.keeps_slope(k):
                factor = (1 - b) / (rho[k] - rho[k - 1])
                now[k], before[k] = factor / grid.mu[k], -factor / grid.mu[k - 1]
        weights[0] -= 1.0  # This is what is added to DDIM, which takes mu' (rho' - rho) eps_0.
        with np.errstate(invalid="ignore"):
            length = np.where(np.isinf(rho[:-1]), 0.0, grid.mu_to * (rho[1:] - rho[:-1]))
        rows = add_noises(grid.ddim(), grid, length * weights)
        return rows.add("x", length * now).add("x", length * before, age=1).steps()

    def keeps_slope(self, n: int) -> bool:
        """Whether the slope of step n has a part of the one before."""
        return self.share < 1 and n >= (1 if self.kind == "hb" else self.estimates)

    def slope(self, n: int) -> Array:
        """The weights of eps_n, eps_{n-1}, ... in the slope of step n, without the part of the slope before."""
        b, k = self.share, self.estimates
        if self.kind == "hb":
            return np.array(ADAMS_BASHFORTH[min(n + 1, k) - 1]) * (b if n else 1.0)
        if n >= k:
            return np.array(mixed(k, b))
        # The velocities v_j = (1 - b) v_{j-1} + b eps_j of the first steps, as sums of estimates; v_0 = eps_0.
        weights = np.zeros(n + 1)
        for age, weight in enumerate(mixed(n + 1, b)):
            j = n - age
            for i in range(j):
                weights[age + i] += weight * (1 - b) ** i
            weights[n] += weight / b * (1 - b) ** j
        return weights
