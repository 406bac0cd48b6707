"""DDPM (Ho, Jain, Abbeel, arXiv 2006.11239) and its learned variance (Nichol, Dhariwal, arXiv 2102.09672)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..engine.plan import Rule, Step, Term
from ..engine.registers import Registers
from ..operators import Operator
from ..schedules import Array
from .solver import Grid, Solver

__all__ = ["DDPM"]


class LearnedNoise(Rule):
    """What the learned variance adds to the unit noise of a step: a coefficient of every element, on the device.

    Args:
        small, large: the logarithms of the two variances that the network's v, from -1 to 1, lies between.
    """

    reads, gives = (("G", 0),), (("z", 0),)

    def __init__(self, small: float, large: float) -> None:
        self.small, self.large = small, large

    def fill(self, step: Step, registers: Registers) -> list[Term]:
        state = registers["x", 0]
        v = registers["G", 0].to(torch.promote_types(state.dtype, torch.float32))
        log = 0.5 * (self.large + self.small) + (0.5 * (self.large - self.small)) * v
        return [Term("z", 0, (0.5 * log).exp().to(state.dtype))]


@dataclass(frozen=True)
class DDPM(Solver):
    """Ancestral sampling: x' is drawn with the mean of q(x' given x, x0hat), and one of three variances.

        mean      mu' x0hat + sqrt(sigma'^2 - s^2) eps,    s = sigma' sqrt(1 - rho'^2/rho^2)
        small     s^2, the variance of q (beta-tilde), so that this is ``DDIM(eta=1)``
        large     sigma^2 (1 - rho'^2/rho^2), the variance of the forward step (beta on VP)
        learned   exp(u ln large + (1 - u) ln small),      u = (v + 1)/2

    with v in [-1, 1] from the second half of the network's channels, of every element. As in the public code no noise
    is drawn in a step to sigma' = 0. On a grid of fewer times than those of training, the variances are those of the
    grid. The steps after the first state do not see the measurement, as those of DDIM.

    Args:
        variance: "small", "large" or "learned"; the last needs a network that returns twice the channels.
    """

    variance: str = "small"

    takes_noise = True
    needs_singular_values = False
    takes_decoded = True

    def __post_init__(self) -> None:
        if self.variance not in ("small", "large", "learned"):
            raise ValueError(f"variance: must be 'small', 'large' or 'learned', got {self.variance!r}")

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        small = grid.ddim_noise(1.0)
        if self.variance == "small":
            return grid.ddim(small).steps()
        noisy = grid.sigma_to > 0
        large: Array = np.where(noisy, small * grid.sigma / np.where(noisy, grid.sigma_to, 1.0), 0.0)
        if self.variance == "large":
            return grid.ddim(small).add("z", large - small).steps()
        rows = grid.ddim(small).add("z", -small)

        def rule(k: int) -> Rule | None:
            return LearnedNoise(2.0 * float(np.log(small[k])), 2.0 * float(np.log(large[k]))) if noisy[k] else None

        return rows.add_rule(rule).steps()
