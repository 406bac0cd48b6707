"""DPIR (Zhang, Li, Zuo, Zhang, Van Gool, Timofte, TPAMI 2021, arXiv 2008.13751): half quadratic splitting."""

from __future__ import annotations

from dataclasses import dataclass

from ..engine.plan import Step
from ..operators import Operator
from .latino import Reencoded
from .solver import Grid, Solver, check_weight

__all__ = ["DPIR"]


@dataclass(frozen=True)
class DPIR(Solver):
    """u = argmin_u ||y - H u||^2 + (lam sigma_y^2/rho'^2) ||u - x0hat||^2,   x' = mu' u,   at the end x' = mu' x0hat

    No noise is drawn or kept: a state is an image that the network takes for one with the noise rho', and what the data
    step leaves in it is removed by the next evaluation. The last one has no data step, so that the result is what the
    network gives. Without noise in the measurement u = x0hat + H+ (y - H x0hat). The paper takes 8 evaluations with rho
    from 49/255 of the range, or 0.38 on [-1, 1], down to sigma_y, evenly spaced in ln rho.

    Args:
        lam: weight of the prior, > 0; the paper takes 0.23.
    """

    lam: float = 0.23

    takes_noise = True
    needs_singular_values = False

    def __post_init__(self) -> None:
        if check_weight("lam", self.lam) == 0:
            raise ValueError(f"lam: must be > 0, got {self.lam}")

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        corrected = grid.mu_to.copy()
        corrected[-1] = 0.0
        rules = [
            Reencoded(float(self.lam * (grid.noise_std * mu / sigma) ** 2))
            for mu, sigma in zip(grid.mu_to[:-1], grid.sigma_to[:-1], strict=True)
        ]
        rows = grid.rows().add("x", grid.mu_to * grid.p).add("F", grid.mu_to * grid.q).add("r", corrected)
        return rows.add_rule([*rules, None].__getitem__).steps()
