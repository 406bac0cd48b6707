"""DDRM (Kawar, Elad, Ermon, Song, NeurIPS 2022, arXiv 2201.11793): diffusion in the singular vectors of H."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..engine.plan import Step
from ..engine.spectrum import SpectralTable
from ..operators import Operator
from ..schedules import Array
from .solver import Grid, Solver, check_fraction

__all__ = ["DDRM"]


@dataclass(frozen=True)
class DDRM(Solver):
    """Each mode of singular value s, with r = H+ y - P x0hat and noise of the measurement sigma_y:

        s = 0                    x' = mu' x0hat + sqrt(1 - eta^2) sigma' eps + eta sigma' z
        s sigma' < mu' sigma_y   x' = mu' x0hat + sqrt(1 - eta^2) sigma' (s/sigma_y) r + eta sigma' z
        else                     x' = mu' (x0hat + eta_b r) + sqrt(sigma'^2 - (mu' eta_b sigma_y/s)^2) z

    The published choice of the two fractions is the default. The public code doubles sigma_y for images in [-1, 1];
    noise_std is in the range of the network, and is taken as it is. The first state is that of every other solver, and
    not the one of the public code.

    Args:
        eta: fresh noise of what is not measured well, a fraction of sigma'.
        eta_b: weight of the measurement where it is better than the state.
    """

    eta: float = 0.85
    eta_b: float = 1.0

    takes_noise = True

    def __post_init__(self) -> None:
        check_fraction("eta", self.eta)
        check_fraction("eta_b", self.eta_b)

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        rows = grid.ddim(self.eta * grid.sigma_to)
        if grid.noise_std:
            table = self._noisy(grid, operator)
            rows.add("r", grid.mu_to).weigh(table, "weight")
            return rows.add_spectra(table, {name: (name, 0) for name in "xFz"}).steps()
        # Without noise the last line of the formula holds for all s > 0, also where sigma' = 0.
        eps_x, eps_F = self._directions(grid)
        rows.add("r", self.eta_b * grid.mu_to).add("x", -eps_x, projected=True).add("F", -eps_F, projected=True)
        return rows.add("z", (1.0 - self.eta) * grid.sigma_to, projected=True).steps()

    def _noisy(self, grid: Grid, operator: Operator) -> SpectralTable:
        mu, sigma = grid.mu_to[:, None], grid.sigma_to[:, None]
        fresh = self.eta * sigma

        def evaluate(s: Array) -> dict[str, Array]:
            noise = grid.noise_std / s  # It is the noise of H+ y's mode.
            measured = sigma >= mu * noise
            variance = np.where(measured, sigma**2 - (mu * self.eta_b * noise) ** 2, fresh**2)
            assert np.all(variance >= 0), "DDRM: sigma' >= mu' sigma_y/s and eta_b <= 1 leave a variance >= 0"
            weak = np.sqrt(1.0 - self.eta**2) * sigma / (mu * noise)
            ones = np.ones_like(s)
            eps_x, eps_F = (c[:, None] * ones for c in self._directions(grid))
            return {
                "weight": np.where(measured, self.eta_b, weak),
                "x": -eps_x,
                "F": -eps_F,
                "z": np.sqrt(variance) - fresh,
            }

        return SpectralTable(evaluate, operator)

    def _directions(self, grid: Grid) -> tuple[Array, Array]:
        """sqrt(1 - eta^2) sigma' eps in x and F, which measured modes do without."""
        direction = np.sqrt(1.0 - self.eta**2) * grid.sigma_to
        return direction * grid.e, direction * grid.f
