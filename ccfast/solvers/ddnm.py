"""DDNM (Wang, Yu, Zhang, arXiv 2212.00490): the range of H+ replaced by the measurement, then DDIM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..engine.plan import Step
from ..engine.spectrum import SpectralTable
from ..operators import Operator
from ..schedules import Array
from .solver import Grid, Solver, check_fraction

__all__ = ["DDNM"]


@dataclass(frozen=True)
class DDNM(Solver):
    """x' = mu' (x0hat + r) + sqrt(sigma'^2 - s^2) eps + s z,   r = H+ y - P x0hat, eps of the unprojected x0hat.

    On a flow the velocity of the unprojected estimate is kept instead of its eps, so that r has weight 1.
    No derivative of the network is taken. It is the limit w -> infinity of ``Conjugate(w, jacobian="none")``.

    With noise in the measurement it is DDNM+ (section 3.3): the mode of singular value s brings noise sigma_y/s into
    x', which takes the place of as much fresh noise, and where that does not suffice r is scaled down:

        lambda_s = min(1, s s_z/(mu' sigma_y)) of r,   (s_z^2 - (mu' lambda_s sigma_y/s)^2)^(1/2) z,   s_z = s above

    Args:
        eta: 0 deterministic, 1 ancestral noise. With noise in the measurement it must be > 0.
    """

    eta: float = 0.0

    takes_noise = True

    def __post_init__(self) -> None:
        check_fraction("eta", self.eta)

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        if grid.noise_std and not self.eta:
            raise ValueError(
                f"eta: must be > 0 where the measurement is noisy, got {self.eta} with noise_std={grid.noise_std}: the "
                "measurement's noise takes the place of fresh noise"
            )
        rows = grid.ddim(grid.ddim_noise(self.eta)).add("r", grid.data_scale)
        if grid.noise_std:
            table = self._noisy(grid, operator)
            rows.weigh(table, "weight").add_spectra(table, {"z": ("z", 0)})
        return rows.steps()

    def _noisy(self, grid: Grid, operator: Operator) -> SpectralTable:
        fresh, scale = grid.ddim_noise(self.eta)[:, None], grid.data_scale[:, None]

        def evaluate(s: Array) -> dict[str, Array]:
            measured = scale * grid.noise_std / s
            weight = np.minimum(1.0, fresh / measured)
            rest = np.sqrt(np.maximum(fresh**2 - measured**2, 0.0))
            return {"weight": weight, "z": rest - fresh}

        return SpectralTable(evaluate, operator)
