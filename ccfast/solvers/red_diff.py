"""RED-diff (Mardani, Song, Kautz, Vahdat, ICLR 2024, arXiv 2305.04391): Adam on a mean, with the network as prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..engine.plan import Rule, Step
from ..engine.registers import Registers
from ..operators import Operator
from .solver import Grid, Solver, check_weight

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


class Adam(Rule):
    """One step of Adam on the mean m, the register u, with its moments in two more.

    Args:
        number: of the step, from 1.
        rate: of Adam.
        prior, data: weights of m - x0hat and of the gradient of the misfit.
    """

    reads, keeps = (("x", 0), ("F", 0)), ("u", "first moment", "second moment")

    def __init__(self, number: int, rate: float, prior: float, data: float) -> None:
        self.number, self.rate, self.prior, self.data = number, rate, prior, data

    def fill(self, step: Step, registers: Registers) -> tuple[()]:
        operator, y = registers.operator, registers.measurement
        mean, first, second = (registers[name, 0] for name in self.keeps)
        misfit = operator.forward(mean) - y
        gradient = operator.adjoint(misfit).mul_(self.data * mean[0].numel() / y[0].numel())
        gradient.add_(mean - registers.estimate(step), alpha=self.prior)
        a, b = BETAS
        first.lerp_(gradient, 1.0 - a)
        second.mul_(b).addcmul_(gradient, gradient, value=1.0 - b)
        # Adam divides by sqrt(second) + epsilon, and the gradient here is n times that of the mean over n pixels.
        root = torch.sqrt(second / (1.0 - b**self.number)).add_(EPSILON * mean[0].numel())
        mean.addcdiv_(first, root, value=-self.rate / (1.0 - a**self.number))
        return ()


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

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        if grid.mu[0] <= 0 and self.profile != "linear":
            raise ValueError(f"start: {self!r} must start later than pure noise, got mu = 0 at t = {grid.t[0]:g}")
        prior = self.weight * WEIGHTS[self.profile](grid.schedule.rho(grid.t))
        rows = grid.rows().add("u", grid.mu_to).add("z", grid.sigma_to)
        return rows.add_rule(lambda k: Adam(k + 1, self.rate, float(prior[k]), self.v)).steps()
