"""UniPC (Zhao, Bai, Rao, Zhou, Lu, arXiv 2302.04867): predictor and corrector with one evaluation a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..engine.plan import Step
from ..operators import Operator
from ..schedules import Array
from ._multistep import add_estimates, check_lower, decaying, lambdas, usable_orders
from .solver import Grid, Solver

__all__ = ["UniPC"]


@dataclass(frozen=True)
class UniPC(Solver):
    """With D_j the estimate of j steps ago, h = lambda' - lambda, r_j = (lambda_j - lambda)/h, s the corrected state:

        predictor   x' = (sigma'/sigma) s - mu' phi1 D0 - mu' B sum_{0<j<p} c_j (D_j - D0)/r_j,   phi1 = exp(-h) - 1
        corrector   s' likewise, with D' = x0hat(x') and r = 1 as one more of the sum

    where sum_j r_j^(i-1) c_j = -int_0^h exp(u - h) (u/h)^i du/B, and c = 1/2 where it is alone. D' is the evaluation
    that the next step needs anyway. Since s' - x' is a combination of estimates, s is no register:

        next x' = (sigma'/sigma) (x + (s - x)) - ...

    is one row over the states and outputs of up to p steps ago. The order is p + 1 on a grid that is fine enough in
    lambda (the first steps, which are of lower order, included for p < 3), and about p on the default grid, which is
    coarse in lambda near the data. The last state is the predictor's, as in the public code. A step from mu = 0 or to
    sigma = 0, which is infinitely long in lambda, is of order 1 and uncorrected. The steps after the first state do not
    see the measurement, as those of DDIM. The public code lowers the last orders whatever the number of steps.

    Args:
        order: p, 1, 2 or 3.
        variant: "bh2", B = exp(-h) - 1, or "bh1", B = -h; they differ only where a c is alone.
        lower_order_final: a run of fewer than 15 steps takes at most one estimate in its last step, two in the step
            before, and so on, as the public schedulers do; False: the plain multistep method.
    """

    order: int = 2
    variant: str = "bh2"
    lower_order_final: bool = True

    takes_noise = True
    needs_singular_values = False
    takes_decoded = True

    def __post_init__(self) -> None:
        check_lower(self.lower_order_final)
        if self.order not in (1, 2, 3):
            raise ValueError(f"order: must be 1, 2 or 3, got {self.order!r}")
        if self.variant not in ("bh1", "bh2"):
            raise ValueError(f"variant: must be 'bh1' or 'bh2', got {self.variant!r}")

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        knots, orders = lambdas(grid), usable_orders(grid, self.order, self.lower_order_final)
        # Row j holds the weights of the estimates of j steps ago.
        weights = np.zeros((self.order + 1, len(orders)))
        for k, order in enumerate(orders):
            h = knots[k + 1] - knots[k]
            if not np.isfinite(h):
                continue
            ratios = (knots[k - np.arange(1, order)] - knots[k]) / h
            predicted = self._differences(h, ratios)
            weights[1:order, k] += grid.mu_to[k] * predicted
            weights[0, k] -= grid.mu_to[k] * predicted.sum()
            if k + 1 == len(orders):
                continue
            # This is s - x of the next step, in which every estimate is one step older and D' is D0.
            corrected = self._differences(h, np.append(ratios, 1.0))
            change = np.concatenate([corrected[-1:], [0.0], corrected[:-1] - predicted])
            change[1] = -change.sum()
            carried = grid.sigma_to[k + 1] / grid.sigma[k + 1]
            weights[: order + 1, k + 1] += carried * grid.mu_to[k] * change
        return add_estimates(grid.ddim(), grid, weights).steps()

    def _differences(self, h: float, ratios: Array) -> Array:
        """Coefficients of D_j - D0 without mu'."""
        count = len(ratios)
        if not count:
            return ratios
        b = -h if self.variant == "bh1" else np.expm1(-h)
        if count == 1:
            c = np.array([0.5])
        else:
            right = [-decaying(h, lambda u, i=i: (u / h) ** i) / b for i in range(1, count + 1)]
            c = np.linalg.solve(ratios ** np.arange(count)[:, None], np.array(right))
        return -b * c / ratios
