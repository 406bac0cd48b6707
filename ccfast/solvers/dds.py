"""DDS (Chung, Lee, Ye, ICLR 2024, arXiv 2303.05754): conjugate gradients on the estimate, then DDIM."""

from __future__ import annotations

from dataclasses import dataclass

from ..engine.plan import Rule, Step
from ..engine.registers import Registers
from ..operators import Operator
from ..operators.conjugate_gradients import conjugate_gradients, damped
from .solver import Grid, Solver, check_fraction, check_weight

__all__ = ["DDS"]


class Correction(Rule):
    """r: conjugate gradient steps from the estimate, damped by ``gamma`` where there is one."""

    reads, writes = (("x", 0), ("F", 0)), ("r",)

    def __init__(self, iterations: int, gamma: float | None) -> None:
        self.iterations, self.gamma = iterations, gamma

    def fill(self, step: Step, registers: Registers) -> tuple[()]:
        forward, adjoint = registers.operator.forward, registers.operator.adjoint
        misfit = registers.measurement - forward(registers.estimate(step))
        if self.gamma is None:
            found = conjugate_gradients(forward, adjoint, misfit, self.iterations, 0.0)
        else:
            found = damped(forward, adjoint, self.gamma * adjoint(misfit), self.gamma, self.iterations)
        registers["r", 0].copy_(found)
        return ()


@dataclass(frozen=True)
class DDS(Solver):
    """x' = mu' (x0hat + r) + sqrt(1 - eta^2) sigma' eps + eta sigma' z,   eps of x0hat before r, and

        x0hat + r = M conjugate gradient steps, from x0hat, on   H^T H u = H^T y                      without noise,
                                                                 (1 + gamma H^T H) u = x0hat + gamma H^T y   with noise

    with inner products of each image (the public code's are of the whole batch). It needs only H and H^T. Without noise
    and with as many steps as H has different singular values it is the projection H+ y + (1 - P) x0hat; for a prior
    N(x0hat, 1) and gamma = 1/sigma_y^2 it is the posterior mean.

    Args:
        iterations: M.
        gamma: weight of the measurement, > 0, where it is noisy: a mode of singular value s moves by
            gamma s^2/(1 + gamma s^2) of the way to it. The default is made for s near 1.
        eta: fresh noise, a fraction of sigma' (not DDIM's).
    """

    iterations: int = 5
    gamma: float = 1.0
    eta: float = 0.85

    takes_noise = True
    needs_singular_values = False

    def __post_init__(self) -> None:
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 1:
            raise ValueError(f"iterations: must be a positive integer, got {self.iterations!r}")
        if check_weight("gamma", self.gamma) == 0:
            raise ValueError(f"gamma: must be > 0, got {self.gamma}")
        check_fraction("eta", self.eta)

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        rule = Correction(self.iterations, self.gamma if grid.noise_std else None)
        return grid.ddim(self.eta * grid.sigma_to).add("r", grid.mu_to).add_rule(lambda k: rule).steps()
