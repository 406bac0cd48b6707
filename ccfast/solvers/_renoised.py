"""Rows that throw away the noise of the state, and draw it anew around the estimate of the image."""

from __future__ import annotations

import numpy as np

from ._grid import Grid
from ._rows import Rows

__all__ = ["renoised"]


def renoised(grid: Grid) -> Rows:
    """Rows of x' = mu' x0hat + s z, with s^2 = sigma'^2 - (mu' rho_n)^2 and the last noise-to-signal ratio rho_n.

    An estimate of a consistency network is a state of the last time, whose noise is left in it.
    """
    rho = grid.sigma_to[-1] / grid.mu_to[-1]
    noise = np.sqrt(np.maximum(grid.sigma_to**2 - (grid.mu_to * rho) ** 2, 0.0))
    noise[-1] = 0.0
    return grid.rows().add("x", grid.mu_to * grid.p).add("F", grid.mu_to * grid.q).add("z", noise)
