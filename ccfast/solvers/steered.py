"""Steered Diffusion, linear case (Nair et al., ICCV 2023, arXiv 2310.00224): the measured part by up(down(x))."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..engine.plan import Rule, Step
from ..engine.registers import Registers
from ..operators import Operator
from .solver import Grid, Solver, check_fraction

__all__ = ["Steered"]


class Enlarged(Rule):
    """r: up(y - H x0hat)."""

    reads, writes = (("x", 0), ("F", 0)), ("r",)

    def __init__(self, up: Callable[[Tensor], Tensor]) -> None:
        self.up = up

    def fill(self, step: Step, registers: Registers) -> tuple[()]:
        misfit = registers.measurement - registers.operator.forward(registers.estimate(step))
        registers["r", 0].copy_(self.up(misfit))
        return ()


@dataclass(frozen=True)
class Steered(Solver):
    """x0' = x0hat + r,   x' = mu' x0' + sqrt(sigma'^2 - s^2) eps' + s z,   s = eta sigma' sqrt(1 - rho'^2/rho^2)

    with r = up(y) - up(H x0hat) for a linear map ``up`` from measurements to images, such as bicubic enlargement, or
    r = H+ y - P x0hat without one. eps' = (x - mu x0')/sigma, or the network's own eps; then, without ``up`` and with
    eta = 0, this is ``DDNM(eta=0)`` on a diffusion schedule.

    Args:
        up: (B, *measurement_shape) to (B, *shape), linear; it must not wait for the device. None: H+.
        eta: 1 ancestral noise, as published; 0 deterministic.
        direction: "derived", as published, or "network", the eps that follows from x0' or from x0hat.
    """

    up: Callable[[Tensor], Tensor] | None = None
    eta: float = 1.0
    direction: str = "derived"

    def __post_init__(self) -> None:
        if self.up is not None and not callable(self.up):
            raise TypeError(f"up: must be a function or None, got {type(self.up).__name__}")
        check_fraction("eta", self.eta)
        if self.direction not in ("derived", "network"):
            raise ValueError(f"direction: must be 'derived' or 'network', got {self.direction!r}")

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        noise = grid.ddim_noise(self.eta)
        kept = np.sqrt(np.maximum(grid.sigma_to**2 - noise**2, 0.0)) if self.direction == "derived" else 0.0
        rows = grid.ddim(noise).add("r", grid.mu_to - kept * grid.mu / grid.sigma)
        rule = None if self.up is None else Enlarged(self.up)
        return rows.add_rule(lambda k: rule).steps()
