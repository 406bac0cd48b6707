"""The Solver: turns a denoiser, an operator and a time grid into a Plan. It owns no tensors and no loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from ..denoiser import Denoiser
from ..engine.bound import check_elements
from ..engine.plan import Plan, Step
from ..latents import Decoded
from ..operators import Operator
from ..schedules import Array
from ._grid import Grid, grid_of

__all__ = ["Grid", "Solver", "check_fraction", "check_weight"]


class Solver(ABC):
    """Writes the plan of a sampler. Members are small immutable objects; ``repr`` shows their parameters.

    Attributes:
        takes_noise: whether a measurement may be noisy (``grid.noise_std > 0``).
        needs_singular_values: whether it then needs those of the operator.
        takes_decoded: whether it works on latents, where the operator acts on decoded images (``ccfast.latent``).
        product: how the plan takes h, a name of ``ccfast.engine.jacobian.PRODUCTS``.
    """

    takes_noise: ClassVar[bool] = False
    needs_singular_values: ClassVar[bool] = True
    takes_decoded: ClassVar[bool] = False
    product = "reverse"

    @abstractmethod
    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        """The steps on a time grid; ``grid.ddim()`` and ``grid.rows()`` are where most of them begin."""

    def inverse(self, denoiser: Denoiser, times: Array) -> Plan:
        """The plan that takes the last state back to the first two; ValueError where there is none."""
        raise ValueError(f"invert: {self!r} has no exact inverse; BDIA() has")

    def plan(self, denoiser: Denoiser, operator: Operator, times: Array, noise_std: float = 0.0) -> Plan:
        """The plan for a grid of times that ``Schedule.check_times`` has passed."""
        check_weight("noise_std", noise_std)
        if isinstance(operator, Decoded) and not self.takes_decoded:
            raise ValueError(
                f"solver: must be LATINO, ReSample, PSLD, STSL, DPS or one that looks at the measurement at the start "
                f"only, such as DDIM, where the operator acts on decoded latents, got {self!r}"
            )
        if noise_std and not self.takes_noise:
            raise ValueError(
                f"noise_std: {self!r} handles noiseless measurements only, so it must be 0, got {noise_std}; "
                "Conjugate, PiGDM, DDRM, DiffPIR, DDS and DPS take noise"
            )
        if noise_std and self.needs_singular_values and operator.kind == "krylov":
            raise ValueError(
                f"noise_std: {self!r} needs the singular values of the operator, which {operator!r} does not have, so "
                f"it must be 0, got {noise_std}; DDS and DPS take noise without them"
            )
        schedule, steps = denoiser.schedule, self.steps(grid_of(denoiser, times, noise_std), operator)
        mu, sigma = schedule.mean(times), schedule.std(times)
        return check_elements(Plan(repr(self), steps, times.copy(), mu, sigma, self.product, noise_std), operator)


def check_weight(name: str, value: float) -> float:
    """A finite number >= 0, or ValueError."""
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: must be a finite number >= 0, got {value}")
    return float(value)


def check_fraction(name: str, value: float) -> float:
    """A number in [0, 1], or ValueError."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: must lie in [0, 1], got {value}")
    return float(value)
