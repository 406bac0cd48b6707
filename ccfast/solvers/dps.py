"""DPS (Chung, Kim, McCann, Klasky, Ye, ICLR 2023, arXiv 2209.14687): descent on the norm of the misfit of x0hat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine.plan import Residual
from ..kernels.reference import per_image
from ..operators import Operator
from ..schedules import Array
from .base import Grid, Solver, check_fraction, check_weight

__all__ = ["DPS"]


def misfit_direction(operator: Operator, y: Tensor, x0hat: Tensor) -> Tensor:
    """-d||y - H x0hat||/d x0hat = H^T (y - H x0hat)/||y - H x0hat|| of every image; 0 where there is no misfit."""
    misfit = y - operator.forward(x0hat)
    norm = torch.linalg.vector_norm(misfit.flatten(1), dim=1)
    return operator.adjoint(misfit) * per_image(torch.where(norm > 0, 1.0 / norm.where(norm > 0, 1.0), 0.0), x0hat)


@dataclass(frozen=True)
class DPS(Solver):
    """x' = mu' x0hat + sqrt(sigma'^2 - s^2) eps + s z - zeta grad_x ||y - H x0hat(x)||   (the norm, not its square)

    with r = H^T (y - H x0hat)/||y - H x0hat|| of each image and -grad_x ||y - H x0hat|| = p r + q (dF/dx)^T r. Needs
    only H and H^T. Noise in the measurement is known to the initial state alone.

    Args:
        zeta: step size, in the data range of the network; the norm is over all values of a measurement.
        eta: 1 ancestral noise, as published; 0 deterministic.
    """

    zeta: float = 1.0
    eta: float = 1.0

    takes_noise = True
    needs_singular_values = False

    def __post_init__(self) -> None:
        check_weight("zeta", self.zeta)
        check_fraction("eta", self.eta)

    def update(self, grid: Grid, operator: Operator) -> dict[str, Array]:
        return {**grid.ddim(grid.ddim_noise(self.eta)), "r": self.zeta * grid.p, "h": self.zeta * grid.q}

    def residual(self, grid: Grid) -> Residual | None:
        return misfit_direction
