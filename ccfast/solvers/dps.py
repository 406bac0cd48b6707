"""DPS (Chung, Kim, McCann, Klasky, Ye, ICLR 2023, arXiv 2209.14687): descent on the norm of the misfit of x0hat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine.plan import Rule, Step
from ..engine.registers import Registers
from ..kernels.reference import per_image
from ..latents import parts_of
from ..operators import Operator
from .solver import Grid, Solver, check_fraction, check_weight

__all__ = ["DPS"]


def unit(x: Tensor) -> Tensor:
    """x/||x|| of every image, 0 where it is zero."""
    norm = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return x * per_image(torch.where(norm > 0, 1.0 / norm.where(norm > 0, 1.0), 0.0), x)


def misfit_direction(operator: Operator, y: Tensor, x0hat: Tensor) -> Tensor:
    """-d||y - H x0hat||/d x0hat = H^T (y - H x0hat)/||y - H x0hat|| of every image; 0 where there is no misfit."""
    parts = parts_of(operator)
    return parts.pull_decoder(x0hat, lambda x: parts.pixels.adjoint(unit(y - parts.pixels.forward(x))))


class Descent(Rule):
    """r: the direction in which the norm of the misfit falls fastest."""

    reads, writes = (("x", 0), ("F", 0)), ("r",)

    def fill(self, step: Step, registers: Registers) -> tuple[()]:
        direction = misfit_direction(registers.operator, registers.measurement, registers.estimate(step))
        registers["r", 0].copy_(direction)
        return ()


@dataclass(frozen=True)
class DPS(Solver):
    """x' = mu' x0hat + sqrt(sigma'^2 - s^2) eps + s z - zeta grad_x ||y - H x0hat(x)||   (the norm, not its square)

    with r = H^T (y - H x0hat)/||y - H x0hat|| of each image and -grad_x ||y - H x0hat|| = p r + q (dF/dx)^T r. It needs
    only H and H^T. Noise in the measurement is known to the initial state alone.

    Args:
        zeta: step size, in the data range of the network; the norm is over all values of a measurement.
        eta: 1 ancestral noise, as published; 0 deterministic.
    """

    zeta: float = 1.0
    eta: float = 1.0

    takes_noise = True
    needs_singular_values = False
    takes_decoded = True

    def __post_init__(self) -> None:
        check_weight("zeta", self.zeta)
        check_fraction("eta", self.eta)

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        rows = grid.ddim(grid.ddim_noise(self.eta)).add("r", self.zeta * grid.p).add("h", self.zeta * grid.q)
        rule = Descent()
        return rows.add_rule(lambda k: rule).steps()
