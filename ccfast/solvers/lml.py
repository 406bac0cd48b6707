"""LML (Wang et al., ICCV 2025, arXiv 2505.24222): DDIM along a direction damped by that of the step before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..engine.plan import Rule, Step, Term
from ..engine.registers import Registers
from ..kernels.reference import combine, dot
from ..operators import Operator
from .solver import Grid, Solver, check_fraction

__all__ = ["LML"]


class Damping(Rule):
    """What n adds to eps in the row of step k > 0: coefficients of every image for eps of this step and the last."""

    def __init__(self, kappa: float, lam: float, grid: Grid, k: int) -> None:
        self.kappa, self.lam, self.sigma = kappa, lam, float(grid.sigma_to[k])
        now, before = ((float(grid.e[j]), float(grid.f[j])) for j in (k, k - 1))
        names = ("x", "F") if np.any(grid.e) else ("F",)
        self.eps = {(name, 0): c for name, c in zip("xF", now, strict=True) if name in names}
        self.before = {(name, 1): c for name, c in zip("xF", before, strict=True) if name in names}
        self.gives = self.reads = (*self.eps, *self.before)

    def fill(self, step: Step, registers: Registers) -> list[Term]:
        delta = combine(self.before | {key: -c for key, c in self.eps.items()}, registers)
        eps = combine(self.eps, registers)
        kappa, n, across, square = self.kappa, dot(eps, eps), dot(eps, delta), dot(delta, delta)
        total = self.lam + n + 2 * kappa * across + kappa**2 * square
        along = (self.lam + kappa * across + kappa**2 * square) / total  # 1 - s
        aside = -kappa * (n + kappa * across) / total  # -s kappa
        length = along**2 * n + 2 * along * aside * across + aside**2 * square
        # A direction of length zero stays what it is.
        scale = (n / length.where(length > 0, 1.0)).sqrt()
        now, before = self.sigma * (scale * (along - aside) - 1.0), self.sigma * scale * aside
        terms = [Term(*key, now * c) for key, c in self.eps.items()]
        return terms + [Term(*key, before * c) for key, c in self.before.items()]


@dataclass(frozen=True)
class LML(Solver):
    """DDIM along n in place of eps:

        x' = mu' x0hat + sigma' n,    n = |eps| m/|m|,    m = lam (lam + e e^T)^-1 eps,
        e  = kappa eps_before + (1 - kappa) eps

    with the norm and inner products of each image. By Sherman and Morrison, with delta = eps_before - eps and
    s = <eps, e>/(lam + |e|^2),

        m = (1 - s) eps - s kappa delta,      1 - s = (lam + kappa <eps, delta> + kappa^2 |delta|^2)/(lam + |e|^2)

    written so that nothing cancels where the two directions are almost parallel. The steps after the first
    state do not see the measurement, as those of DDIM.

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
    takes_decoded = True

    def __post_init__(self) -> None:
        if not 0 <= self.kappa < 1:
            raise ValueError(f"kappa: must lie in [0, 1), got {self.kappa}")
        if not 0 < self.lam < np.inf:
            raise ValueError(f"lam: must be a finite number > 0, got {self.lam}")
        check_fraction("freeze", self.freeze)

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        rows = grid.ddim()
        first = max(1, int(np.ceil(self.freeze * len(grid.t))))
        return rows.add_rule(
            lambda k: Damping(self.kappa, self.lam, grid, k) if self.kappa and k >= first else None
        ).steps()
