"""LATINO (Spagnoletti et al., ICCV 2025, arXiv 2503.12615): decode, take a proximal step, encode, and add noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..engine.plan import Rule, Step
from ..engine.registers import Registers
from ..latents import parts_of
from ..operators import Operator
from ..operators.proximal import proximal
from ._renoised import renoised
from .solver import Grid, Solver

__all__ = ["LATINO", "Reencoded", "explained_of", "penalties"]


def explained_of(registers: Registers) -> Tensor:
    """H+ y on images, which a run of latents computes in its first step."""
    parts = parts_of(registers.operator)
    if parts.image is None:
        return registers["ybar", 0]
    if ("image", 0) not in registers:
        registers["image", 0] = parts.pixels.pinv(registers.measurement)
    return registers["image", 0]


class Reencoded(Rule):
    """r: E(prox(D(x0hat))) - x0hat, the way to the encoding of the nearest image that explains the measurement."""

    reads, writes = (("x", 0), ("F", 0)), ("r",)

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def fill(self, step: Step, registers: Registers) -> tuple[()]:
        parts, x0hat = parts_of(registers.operator), registers.estimate(step)
        image, explained = parts.decode(x0hat), explained_of(registers)
        image = proximal(parts.pixels, registers.measurement, image, self.penalty, explained)
        registers["r", 0].copy_(parts.encode(image) - x0hat)
        return ()


@dataclass(frozen=True)
class LATINO(Solver):
    """u = argmin_u ||y - H u||^2/sigma_y^2 + ||u - D(x0hat)||^2/(delta r_t^2),   x' = mu' E(u) + s z

    with r_t^2 = rho^2/(1 + rho^2) and the noise s of ``Consistency``; without noise in the measurement
    u = D(x0hat) + H+ (y - H D(x0hat)). No derivative of the network, the decoder or the encoder is taken. On images,
    where D and E are the identity, it is a plug-and-play method.

    The paper takes 8 steps of a latent consistency model from pure noise, and tunes a delta for each of them.

    Args:
        delta: variance of D(x0hat) where there is nothing but noise, > 0, for noisy measurements.
    """

    delta: float = 1.0

    takes_noise = True
    needs_singular_values = False
    takes_decoded = True

    def __post_init__(self) -> None:
        if not 0 < self.delta < math.inf:
            raise ValueError(f"delta: must be a finite number > 0, got {self.delta}")

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        rules = [Reencoded(penalty) for penalty in penalties(grid, self.delta)]
        return renoised(grid).add("r", grid.mu_to).add_rule(rules.__getitem__).steps()


def penalties(grid: Grid, delta: float) -> list[float]:
    """sigma_y^2/(delta r_t^2) of every step, r_t^2 = sigma^2/(mu^2 + sigma^2)."""
    variance = delta * grid.sigma**2 / (grid.mu**2 + grid.sigma**2)
    return (grid.noise_std**2 / variance).tolist()
