"""DDNM (Wang, Yu, Zhang, ICLR 2023, arXiv 2212.00490): the range of H+ is replaced by the measurement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..engine.plan import Step
from ..operators import Operator
from .ddrm import DDRM
from .solver import Grid, Solver, check_fraction

__all__ = ["DDNM"]


@dataclass(frozen=True)
class DDNM(Solver):
    """x' = mu' (x0hat + r) + sqrt(1 - eta^2) sigma' eps + eta sigma' z,   r = H+ y - P x0hat, eps of x0hat before r.

    The fresh noise is the fraction eta of sigma' in every step, however short the step is; DDIM's fresh noise, which
    vanishes with the length of the step, is another one. On a flow the velocity of x0hat is kept rather than its eps,
    so that eps + r takes the place of eps. No derivative of the network is taken. With eta = 0 the method is the limit
    w -> infinity of ``Conjugate(w, jacobian="none")``.

    With noise in the measurement it is DDNM+ with the scaling of every mode (appendix I of the paper, and the released
    code): the mode of singular value s brings noise of standard deviation mu' sigma_y/s into x'.

        s = 0                    mu' x0hat + sqrt(1 - eta^2) sigma' eps + eta sigma' z
        s sigma' < mu' sigma_y   mu' x0hat + sqrt(1 - eta^2) sigma' (s/sigma_y) r + eta sigma' z
        else                     mu' (x0hat + r) + sqrt(sigma'^2 - (mu' sigma_y/s)^2) z

    This is ``DDRM(eta, eta_b=1)``, as the authors note. The limit sigma_y -> 0 is therefore not the noiseless method:
    a mode that is measured well keeps none of eps.

    Args:
        eta: fraction of sigma' that is fresh noise, in [0, 1]; the released code takes 0.85.
    """

    eta: float = 0.85

    takes_noise = True

    def __post_init__(self) -> None:
        check_fraction("eta", self.eta)

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        if grid.noise_std:
            return DDRM(self.eta, 1.0).steps(grid, operator)
        # On a flow eps depends on r with this coefficient, which is zero elsewhere.
        kept = np.sqrt(1.0 - self.eta**2) * (grid.data_scale - grid.mu_to)
        return grid.ddim(self.eta * grid.sigma_to).add("r", grid.mu_to + kept).steps()
