"""What multistep solvers share: estimates of earlier steps as terms of a row, and polynomials through them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..schedules import Array
from ._grid import Grid
from ._quadrature import integrate
from ._rows import Rows

__all__ = ["FEW", "add_estimates", "add_noises", "check_lower", "decaying", "lagrange", "lambdas", "usable_orders"]

FEW = 15
"""A run of fewer steps lowers the orders of its last steps, as the public schedulers do."""


def add_estimates(rows: Rows, grid: Grid, weights: Array) -> Rows:
    """Add sum_j weights[j] x0hat_j, with x0hat_j the estimate of j steps ago and weights (J, n)."""
    return add_forms(rows, grid.p, grid.q, weights)


def add_noises(rows: Rows, grid: Grid, weights: Array) -> Rows:
    """Add sum_j weights[j] eps_j, with eps_j the noise estimate of j steps ago and weights (J, n)."""
    return add_forms(rows, grid.e, grid.f, weights)


def add_forms(rows: Rows, a: Array, b: Array, weights: Array) -> Rows:
    """Add sum_j weights[j] (a x + b F) of j steps ago; the weights are zero in the first j steps."""
    for age, weight in enumerate(weights):
        for register, form in (("x", a), ("F", b)):
            shifted = np.concatenate([np.zeros(age), form[: len(form) - age]])[: len(form)]
            rows.add(register, weight * shifted, age)
    return rows


def lambdas(grid: Grid) -> Array:
    """Half the log signal-to-noise ratio at all n + 1 times; -inf where mu = 0, inf where sigma = 0."""
    with np.errstate(divide="ignore"):
        return -np.log(grid.schedule.rho(grid.times))


def check_lower(value: object) -> None:
    """ValueError unless lower_order_final is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"lower_order_final: must be True or False, got {value!r}")


def usable_orders(grid: Grid, order: int, lower_order_final: bool) -> Array:
    """How many estimates (n,) each step may use: no more than there are, and none of where mu = 0 beside others.

    A step to sigma = 0 is infinitely long in lambda, and takes one. Where the final orders are lowered, a run of fewer
    than ``FEW`` steps takes at most one estimate in its last step, two in the step before, and so on: the last steps
    are long in lambda where the times end near the data, and a polynomial through far points extrapolates badly.
    """
    finite = np.isfinite(lambdas(grid))
    count = len(grid.t)
    steps = np.arange(count)
    since = steps - (0 if finite[0] else 1) + 1
    left = count - steps if lower_order_final and count < FEW else count
    return np.where(finite[1:], np.clip(np.minimum(since, left), 1, order), 1)


def lagrange(nodes: Array, at: Array) -> Array:
    """(m, Q): the polynomials that are 1 at one of the nodes (m,) and 0 at the others, at points (Q,)."""
    rows = []
    for j, node in enumerate(nodes):
        others = np.delete(nodes, j)
        rows.append(np.prod((at[:, None] - others) / (node - others), axis=1))
    return np.array(rows)


def decaying(h: float, f: Callable[[Array], Array]) -> Array:
    """int_0^h exp(u - h) f(u) du, by Gauss-Legendre: no cancellation at small h."""
    return integrate(lambda u: f(u) * np.exp(u - h), 0.0, h, panel=1.0)
