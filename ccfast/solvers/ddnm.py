"""DDNM (Wang, Yu, Zhang, arXiv 2212.00490): the range of H+ replaced by the measurement, then DDIM."""

from __future__ import annotations

from dataclasses import dataclass

from ..operators import Operator
from ..schedules import Array
from .base import Grid, Solver, check_fraction

__all__ = ["DDNM"]


@dataclass(frozen=True)
class DDNM(Solver):
    """x' = mu' (x0hat + r) + sqrt(sigma'^2 - s^2) eps + s z,   r = H+ y - P x0hat, eps of the unprojected x0hat.

    On a flow the velocity of the unprojected estimate is kept instead of its eps, so that r has weight 1.
    No derivative of the network is taken. It is the limit w -> infinity of ``Conjugate(w, jacobian="none")``.

    Args:
        eta: 0 deterministic, 1 ancestral noise.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        check_fraction("eta", self.eta)

    def update(self, grid: Grid, operator: Operator) -> dict[str, Array]:
        return {**grid.ddim(grid.ddim_noise(self.eta)), "r": grid.data_scale}
