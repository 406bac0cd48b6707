"""DiffPIR (Zhu, Zhang, Liang, Cao, Wen, Timofte, Van Gool, CVPRW 2023, arXiv 2305.08995): a proximal step and DDIM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..engine.plan import Step
from ..engine.spectrum import SpectralTable
from ..operators import Operator
from .solver import Grid, Solver, check_fraction, check_weight

__all__ = ["DiffPIR"]


@dataclass(frozen=True)
class DiffPIR(Solver):
    """x0' = argmin_u ||y - H u||^2 + (lam (sigma_y/2)^2/rho^2) ||u - x0hat||^2,   eps' = (x - mu x0')/sigma

        x' = mu' x0' + sigma' (sqrt(1 - zeta) eps' + sqrt(zeta) z)

    The scale of ``lam`` is that of the paper's tables and of the released code, whose images lie in [-1, 1] while its
    noise level is that of images in [0, 1]: sigma_y = ``noise_std`` is in the range of the network, [-1, 1], and enters
    halved. The proximal step is exact, a factor s^2/(s^2 + lam (sigma_y/2)^2/rho^2) of every mode of
    r = H+ y - P x0hat. Without noise the factor is 1 (the released code takes a noise level of 0.001 instead). Two
    habits of the released code are not followed: it leaves the data term out of the last step, and it begins from the
    measurement enlarged.

    Args:
        lam: weight of the prior, > 0; the released code takes 7 for deblurring, and the paper tunes it from 1 to 25.
        zeta: part of the noise that is fresh, in variance, in [0, 1]; the released code takes 0.3 for deblurring.
    """

    lam: float = 7.0
    zeta: float = 0.3

    takes_noise = True

    def __post_init__(self) -> None:
        if check_weight("lam", self.lam) == 0:
            raise ValueError(f"lam: must be > 0, got {self.lam}")
        check_fraction("zeta", self.zeta)

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        kept = np.sqrt(1.0 - self.zeta) * grid.sigma_to
        # The noise of the moved estimate is eps' = eps - (mu/sigma) (x0' - x0hat).
        rows = grid.ddim(np.sqrt(self.zeta) * grid.sigma_to).add("r", grid.mu_to - kept * grid.mu / grid.sigma)
        if grid.noise_std:
            penalty = (self.lam * (0.5 * grid.noise_std) ** 2 * (grid.mu / grid.sigma) ** 2)[:, None]
            rows.weigh(SpectralTable(lambda s: {"weight": s**2 / (s**2 + penalty)}, operator), "weight")
        return rows.steps()
