"""Multistep sampling of consistency models (Song, Dhariwal, Chen, Sutskever, ICML 2023, arXiv 2303.01469)."""

from __future__ import annotations

from dataclasses import dataclass

from ..engine.plan import Step
from ..operators import Operator
from ._renoised import renoised
from .solver import Grid, Solver

__all__ = ["Consistency"]


@dataclass(frozen=True)
class Consistency(Solver):
    """x' = mu' x0hat + sqrt(sigma'^2 - (mu' rho_n)^2) z,   rho_n = sigma_n/mu_n of the last time

    for networks that go to the end of the ODE in one evaluation: consistency models and latent consistency models
    (``Denoiser(prediction="consistency")``, ``Denoiser(boundary=...)``). The last step adds no noise. The steps after
    the first state do not see the measurement; ``LATINO`` and, on images, ``DDNM(eta=1.0)`` do.
    """

    takes_noise = True  # in the first state
    needs_singular_values = False
    takes_decoded = True

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        return renoised(grid).steps()
