"""RED-diff (Mardani, Song, Kautz, Vahdat, ICLR 2024, arXiv 2305.04391): Adam on a mean, with the network as prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..engine.plan import Auxiliary
from ..kernels.reference import denoised
from ..operators import Operator
from ..schedules import Array
from .base import Grid, Solver, check_weight

__all__ = ["REDDiff"]

WEIGHTS = {
    "linear": lambda rho: np.ones_like(rho),
    "sqrt": lambda rho: rho**-0.5,
    "square": lambda rho: rho,
    "log": lambda rho: np.log1p(rho) / rho,
    "constant": lambda rho: 1.0 / rho,
}
"""w_t/rho for the published weights w_t: eps - z = (m - x0hat)/rho, with which they are multiplied."""

BETAS, EPSILON = (0.9, 0.99), 1e-8
"""Adam's, as published."""


class Adam(Auxiliary):
    """One step of Adam on the mean m, slot 0, with its moments in slots 1 and 2."""

    slots = 3

    def __init__(self, grid: Grid, rate: float, prior: Array, data: float) -> None:
        self.p, self.q, self.prior = grid.p.tolist(), grid.q.tolist(), prior.tolist()
        self.rate, self.data = rate, data

    def take(
        self, operator: Operator, y: Tensor, k: int, registers: Mapping[str, Tensor], slots: Sequence[Tensor]
    ) -> None:
        mean, first, second = slots
        misfit = operator.forward(mean) - y
        gradient = operator.adjoint(misfit).mul_(self.data * mean[0].numel() / y[0].numel())
        x0hat = denoised(registers["x"], registers["F"], self.p[k], self.q[k])
        gradient.add_(mean - x0hat, alpha=self.prior[k])
        (a, b), t = BETAS, k + 1
        first.lerp_(gradient, 1.0 - a)
        second.mul_(b).addcmul_(gradient, gradient, value=1.0 - b)
        # Adam divides by sqrt(second) + epsilon, and the gradient here is n times that of the mean over n pixels
        root = torch.sqrt(second / (1.0 - b**t)).add_(EPSILON * mean[0].numel())
        mean.addcdiv_(first, root, value=-self.rate / (1.0 - a**t))


@dataclass(frozen=True)
class REDDiff(Solver):
    """m <- H+ y, and at every time, with x = mu m + sigma z and fresh z,

        gradient = w_t (eps(x) - z)/n + v H^T (H m - y)/n_y,    m <- Adam(m, gradient),    x' = mu' m + sigma' z'

    for n pixels and n_y values of the measurement. No derivative of the network is taken. The last state carries sigma'
    of noise: end at sigma' = 0 (t = 0, of a flow 1) for m itself. With noise in the measurement the first m is the mean
    of the sampler's first state. The published dispersion sigma_x0 is 0, its default.

    Args:
        rate: of Adam, betas 0.9 and 0.99.
        weight: of the prior, w_t = weight rho with ``profile`` "linear".
        v: weight of the measurement.
        profile: "linear", "sqrt", "square", "log" (of 1 + rho) or "constant": w_t as a function of rho = sigma/mu.
    """

    rate: float = 0.1
    weight: float = 0.25
    v: float = 1.0
    profile: str = "linear"

    takes_noise = True
    needs_singular_values = False

    def __post_init__(self) -> None:
        for name in ("rate", "weight", "v"):
            check_weight(name, getattr(self, name))
        if self.profile not in WEIGHTS:
            raise ValueError(f"profile: must be one of {', '.join(map(repr, WEIGHTS))}, got {self.profile!r}")

    def update(self, grid: Grid, operator: Operator) -> dict[str, Array]:
        return {"u": grid.mu_to, "z": grid.sigma_to}

    def auxiliary(self, grid: Grid) -> Auxiliary | None:
        if grid.mu[0] <= 0 and self.profile != "linear":
            raise ValueError(f"start: {self!r} must start later than pure noise, got mu = 0 at t = {grid.t[0]:g}")
        prior = self.weight * WEIGHTS[self.profile](grid.schedule.rho(grid.t))
        return Adam(grid, self.rate, prior, self.v)
