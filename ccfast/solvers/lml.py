"""LML (Wang et al., ICCV 2025, arXiv 2505.24222): DDIM along a direction damped by that of the step before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..engine.plan import Reduction
from ..operators import Operator
from ..schedules import Array
from .base import Grid, Solver, check_fraction

__all__ = ["LML"]


@dataclass(frozen=True)
class LML(Solver):
    """DDIM along n in place of eps:

        x' = mu' x0hat + sigma' n,    n = |eps| m/|m|,    m = lam (lam + e e^T)^-1 eps,
        e  = kappa eps_before + (1 - kappa) eps

    with the norm and inner products of each image. By Sherman and Morrison, with delta = eps_before - eps and
    s = <eps, e>/(lam + |e|^2),

        m = (1 - s) eps - s kappa delta,      1 - s = (lam + kappa <eps, delta> + kappa^2 |delta|^2)/(lam + |e|^2)

    written so that nothing cancels where the two directions are almost parallel. Blind to the measurement after the
    start, as DDIM.

    Args:
        kappa: in [0, 1), weight of the direction of the step before. 0, the released default, is DDIM: the rescaling
            undoes the damping (the public code subtracts what is almost equal, and rescales the rounding error).
        lam: damping, > 0, on the scale of |eps|^2, the number of pixels. Where it is much smaller and kappa > 0, m is
            the part of eps that is orthogonal to e, and the steps no longer follow the ODE.
        freeze: the first fraction of the steps that are plain DDIM; the very first always is.
    """

    kappa: float = 0.0
    lam: float = 1e-3
    freeze: float = 0.0

    takes_noise = True
    needs_singular_values = False

    def __post_init__(self) -> None:
        if not 0 <= self.kappa < 1:
            raise ValueError(f"kappa: must lie in [0, 1), got {self.kappa}")
        if not 0 < self.lam < np.inf:
            raise ValueError(f"lam: must be a finite number > 0, got {self.lam}")
        check_fraction("freeze", self.freeze)

    def update(self, grid: Grid, operator: Operator) -> dict[str, Array]:
        return grid.ddim()

    def reduction(self, grid: Grid) -> Reduction | None:
        if self.kappa == 0:
            return None
        e1, f1 = (np.concatenate([[0.0], column[:-1]]) for column in (grid.e, grid.f))
        sigma = grid.sigma_to

        def coefficients(k: int, dots: Mapping[str, Tensor]) -> dict[str, Tensor]:
            kappa, n, across, delta = self.kappa, dots["nn"], dots["nd"], dots["dd"]
            total = self.lam + n + 2 * kappa * across + kappa**2 * delta
            along = (self.lam + kappa * across + kappa**2 * delta) / total  # 1 - s
            aside = -kappa * (n + kappa * across) / total  # -s kappa
            square = along**2 * n + 2 * along * aside * across + aside**2 * delta
            # a direction of length zero stays what it is
            scale = (n / square.where(square > 0, 1.0)).sqrt()
            now, before = sigma[k] * (scale * (along - aside) - 1.0), sigma[k] * scale * aside
            return {"x": now * grid.e[k], "F": now * grid.f[k], "x1": before * e1[k], "F1": before * f1[k]}

        vectors = {
            "n": {"x": grid.e, "F": grid.f},
            "d": {"x1": e1, "F1": f1, "x": -grid.e, "F": -grid.f},
        }
        dots = {"nn": ("n", "n"), "nd": ("n", "d"), "dd": ("d", "d")}
        states = ("x", "x1") if np.any(grid.e) else ()
        first = max(1, int(np.ceil(self.freeze * len(sigma))))
        return Reduction(vectors, dots, coefficients, (*states, "F", "F1"), first)
