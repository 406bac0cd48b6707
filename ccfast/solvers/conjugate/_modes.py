"""Step coefficients of the conjugate integrator for any singular value, by one quadrature rule a step.

Diffusion (eps frozen) and flow (velocity v frozen) are one equation. With

    diffusion   X = rho = sigma/mu    n = eps    lever = sigma    m = mu'    profile = 1/(1 + rho^2)
    flow        X = 1 - t             n = -v     lever = 1 - t    m = 1      profile = t^2

the estimate is x0hat = x/m' - X n (m' = mu, or 1), and the error e = x0hat - H+ y of the mode of singular value s obeys

    de/dX = R_s e + R lever g + (dn/dX terms),    R_s dX = X^2 w_t G_s d ln rho,    G_s = s^2/(r^2 s^2 + sigma_y^2)

where r^2 = rho^2/(1 + rho^2), g = (dn/dx)^T V omega V^T (H+ y - x0hat), omega_s = G_s/G at the start of the step, R and
G are those of a reference singular value (the largest), and w_t = w r^2 profile, or 1 for w = "bayes". So with
D(X) = exp(-c int_{X'}^{X} R_s), c = 1 + eta^2 and theta = (X - X_n)/(X_n - X_{n-1}) of a second order step:

    kappa  = 1 - D(X_n)                          of r
    d, v   = -c m int R lever (1, theta) D dX    of g and of its change since the step before
    W      = -m int (X D - X') dX/(X_{n-1} - X_n)    of the change of n
    churn  = -m eta^2 int (1, theta) D X d ln rho    of eps and of its change
    spread = m eta (int 2 X^2 D^2 d ln rho)^(1/2)    of fresh noise

Centred, g enters as g - j omega r and R_s in D as (1 - lever j) R_s: for a unit Gaussian prior 1 - lever j is
1/(1 + rho^2) with eps and (1 + rho)/(1 + rho^2) with v, and then g - j omega r = 0. Everything is smooth in ln rho, so
that Gauss-Legendre panels give the integrals to 1e-13, and kappa, which has a closed form for diffusion, as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...kernels.row import Key
from ...schedules import Array
from .._grid import Grid
from .._quadrature import nodes_and_weights
from ._diffusion import path_std

__all__ = [
    "STABILITY_LIMIT",
    "Forms",
    "Guidance",
    "Modes",
    "StepRule",
    "forms",
    "is_flow",
    "lever",
    "modes",
    "starts",
    "terms",
]


STABILITY_LIMIT = {1: 8.0 + 4.0 * np.sqrt(2.0), 2: 6.0}
"""Largest 2 int R_s dX of a step, w (B - B') without noise, at which ``jacobian="exact"`` is stable for a log-concave
prior, by order."""

Number = Any
"""An array, a tensor or a float: the terms below are the same for a table of modes and for the images of a batch."""


class Modes(NamedTuple):
    """Coefficients of a step over singular values (M,) or images (B,); of several steps (n, M)."""

    kappa: Number
    d: Number
    v: Number
    W: Number
    churn: Number
    churn_change: Number
    spread: Number


@dataclass(frozen=True)
class Guidance:
    """The guidance of a plan.

    Args:
        grid: of the sampler.
        w: weight >= 0, or "bayes".
        reference: singular value whose rate is the profile of the guidance term; 0 counts as the null space.
        eta: amount of fresh noise.
        centred: whether to centre on a unit Gaussian prior.
        order: 1 or 2.
    """

    grid: Grid
    w: float | str
    reference: float
    eta: float
    centred: bool
    order: int

    def gain(self, rho: Array, s: Array) -> Array:
        """G_s, (M, Q) for s (M,) and rho (Q,); 0 for s = 0."""
        square = np.square(s)[:, None]
        r2 = rho * rho / (1.0 + rho * rho)
        out = np.zeros((len(s), len(rho)))
        return np.divide(square, r2 * square + self.grid.noise_std**2, out=out, where=square > 0)

    def rate(self, rho: Array, s: Array) -> Array:
        """R_s dX/d ln rho, (M, Q)."""
        if self.w == "bayes":
            return np.square(coordinate(self.grid, rho)) * self.gain(rho, s)
        profile = (1.0 + rho) ** -2 if is_flow(self.grid) else 1.0 / (1.0 + rho * rho)
        weight = float(self.w) * rho * rho / (1.0 + rho * rho) * profile
        return np.square(coordinate(self.grid, rho)) * weight * self.gain(rho, s)

    def omega(self, s: Array) -> Array:
        """Weight of the residual of mode s at the start of every step, (n, M)."""
        rho = starts(self.grid)
        return (self.gain(rho, s) / self.gain(rho, np.array([self.reference]))).T

    def j(self) -> Array:
        """The centre of the Jacobian at the start of every step, (n,)."""
        rho = starts(self.grid)
        return (1.0 - centre(self.grid, rho)) / lever(self.grid, rho) if self.centred else np.zeros_like(rho)


class StepRule:
    """Quadrature of one step: points in ln rho, and the integrals of a step as weights at them.

    Attributes:
        rho: (Q,) points, from the end of the step to its start.
        functionals: (Q, 5) such that D @ functionals + offset is d, v, W and the two churns.
        spread: (Q,) such that D^2 @ spread is the variance of the fresh noise.
    """

    def __init__(self, guidance: Guidance, k: int) -> None:
        grid = guidance.grid
        start, end = float(grid.schedule.rho(grid.t[k])), float(grid.sigma_to[k] / grid.mu_to[k])
        # What is cut off at the ends of a step from mu = 0 or to sigma = 0 is below the rounding error.
        highest = cutoff(guidance)
        low, high = np.log(max(end, 1e-14 * min(1.0, start))), np.log(min(start, highest))
        c = 1.0 + guidance.eta**2
        reference = np.array([guidance.reference])
        edges = panels(low, high, lambda u: c * guidance.rate(np.exp(u), reference)[0])
        points, weights = nodes_and_weights(COUNT)
        self._widths = np.diff(edges)
        self._weights = weights
        self.rho = np.exp(edges[:-1, None] + self._widths[:, None] * points).ravel()
        dv = (self._widths[:, None] * weights).ravel()
        x = coordinate(grid, self.rho)
        x_start, x_end = coordinate(grid, np.array([min(start, highest), end]))
        step = x * (1.0 - x) if is_flow(grid) else x  # It is dX/d ln rho.
        scale = 1.0 if is_flow(grid) else grid.mu_to[k]
        theta, change, offset = np.zeros_like(x), np.zeros_like(x), 0.0
        if guidance.order == 2 and k:
            before = coordinate(grid, starts(grid)[k - 1 : k])[0] - x_start
            theta, change = (x - x_start) / -before, -scale / before * x * step
            offset = scale / before * x_end * (x_start - x_end)
        push = -c * scale * guidance.rate(self.rho, reference)[0] * lever(grid, self.rho)
        churn = -scale * guidance.eta**2 * x
        self.functionals = np.stack([push, push * theta, change, churn, churn * theta], axis=1) * dv[:, None]
        self.offset = np.array([0.0, 0.0, offset, 0.0, 0.0])
        self.spread = 2.0 * np.square(scale * guidance.eta * x) * dv

    def cumulative(self, f: Array) -> tuple[Array, Array]:
        """Integral of f (M, Q) from the end of the step to every point, and over the whole step (M,)."""
        f = f.reshape(len(f), -1, COUNT)
        totals = (f @ self._weights) * self._widths
        before = np.cumsum(totals, axis=1) - totals
        inside = (f @ integration_matrix().T) * self._widths[:, None]
        return (before[..., None] + inside).reshape(len(f), -1), totals.sum(axis=1)


class Forms(NamedTuple):
    """eps = e x + f F, n = alpha x + beta F, and the centre j of dn/dx; of all steps (n, 1), or numbers of one."""

    e: Number
    f: Number
    alpha: Number
    beta: Number
    j: Number


def forms(guidance: Guidance) -> tuple[Forms, Forms]:
    """Those of every step and of the step before it (zero for the first)."""
    grid = guidance.grid
    sign = -1.0 if is_flow(grid) else 1.0
    columns = (grid.e, grid.f, sign * grid.alpha, sign * grid.beta, guidance.j())
    return (
        Forms(*(column[:, None] for column in columns)),
        Forms(*(np.concatenate([[0.0], column[:-1]])[:, None] for column in columns)),
    )


def terms(m: Modes, now: Forms, before: Forms, scaled_omega: Number) -> dict[Key, Number]:
    """What a mode adds to the row of DDIM, by register, broadcast over ``m``.

    ``scaled_omega`` is the weight that the residual carries, over the change of x' with x0hat.
    """
    g, churn = m.d + m.v, m.churn + m.churn_change
    return {
        ("x", 0): churn * now.e + m.W * now.alpha,
        ("F", 0): churn * now.f + m.W * now.beta,
        ("x", 1): -m.churn_change * before.e - m.W * before.alpha,
        ("F", 1): -m.churn_change * before.f - m.W * before.beta,
        ("r", 0): m.kappa / scaled_omega + g * (now.alpha - now.j),
        ("h", 0): g * now.beta,
        ("r", 1): -m.v * (before.alpha - before.j),
        ("h", 1): -m.v * before.beta,
        ("z", 0): m.spread,
    }


def modes(guidance: Guidance, s: Array) -> Modes:
    """The coefficients of every step, (n, M) over singular values s (M,); s = 0 is the null space."""
    c = 1.0 + guidance.eta**2
    rows = []
    for k in range(len(guidance.grid.t)):
        rule = StepRule(guidance, k)
        rate = c * guidance.rate(rule.rho, s)
        exponent, total = rule.cumulative(rate * centre(guidance.grid, rule.rho) if guidance.centred else rate)
        decay = np.exp(-exponent)
        integrals = decay @ rule.functionals + rule.offset
        rows.append((-np.expm1(-total), *integrals.T, np.sqrt(np.square(decay) @ rule.spread)))
    return Modes(*(np.array(column) for column in zip(*rows, strict=True)))


# ---------------------------------------------------------------------------------------- the path in rho
def starts(grid: Grid) -> Array:
    """rho at the start of every step, 1e16 for a flow's infinity."""
    return np.minimum(grid.schedule.rho(grid.t), HIGHEST)


def cutoff(guidance: Guidance) -> float:
    """The rho where a step that starts from mu = 0 is cut off, and D = rho^-w is below rounding with eps frozen."""
    if is_flow(guidance.grid) or guidance.w == "bayes" or guidance.w == 0:
        return HIGHEST
    return float(10.0 ** min(16.0 / min(float(guidance.w), 1.0), 150.0))


def is_flow(grid: Grid) -> bool:
    return grid.schedule.frozen == "velocity"


def coordinate(grid: Grid, rho: Array) -> Array:
    """X."""
    return rho / (1.0 + rho) if is_flow(grid) else rho


def lever(grid: Grid, rho: Array) -> Array:
    return coordinate(grid, rho) if is_flow(grid) else path_std(grid, rho)


def centre(grid: Grid, rho: Array) -> Array:
    """1 - lever j for a unit Gaussian prior."""
    return (1.0 + rho if is_flow(grid) else 1.0) / (1.0 + rho * rho)


# ---------------------------------------------------------------------------------------- panels
COUNT = 16
"""Points of a panel."""

HIGHEST = 1e16
"""The rho that stands for infinity, where mu = 0."""

LONGEST, STEEPEST = 2.0, 20.0
"""A panel is at most this long in ln rho, and D falls by at most this many e-foldings in it while it matters."""


def panels(low: float, high: float, rate: Callable[[Array], Array]) -> Array:
    """Edges from low to high, denser where the exponent (the integral of ``rate`` from low) grows fast.

    Where it has grown beyond 20 a panel may double it: the fastest mode has died out there, and one that is slower by
    any factor still finds panels in which its own exponent grows by 20 at most, or has died out too.
    """
    u = np.linspace(low, high, 129)
    values = rate(u)
    exponent = np.concatenate([[0.0], np.cumsum((values[1:] + values[:-1]) / 2 * np.diff(u))])
    edges = [low]
    while edges[-1] < high:
        grown = np.interp(edges[-1], u, exponent)
        steep = grown + max(STEEPEST, grown)
        reach = high if steep >= exponent[-1] else float(np.interp(steep, exponent, u))
        edges.append(min(edges[-1] + LONGEST, max(reach, edges[-1] + 1e-3 * (high - low)), high))
    return np.array(edges)


@lru_cache(maxsize=1)
def integration_matrix() -> Array:
    """(16, 16): integral from 0 to every Gauss-Legendre point of [0, 1] of the polynomial through values there."""
    points, _ = nodes_and_weights(COUNT)
    x = 2.0 * points - 1.0
    legendre = np.polynomial.legendre.legvander(x, COUNT)
    degrees = np.arange(COUNT)
    below = np.column_stack([np.full(COUNT, -1.0), legendre[:, : COUNT - 1]])  # P_{-1} stands for -1: int P_0 = x + 1
    integrals = (legendre[:, 1:] - below) / (2 * degrees + 1)
    return 0.5 * integrals @ np.linalg.inv(legendre[:, :COUNT])
