"""ReSample (Song, Kwon, Zhang, Hu, Qu, Shen, ICLR 2024, arXiv 2307.08123): hard data consistency, then resampling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..engine.plan import Rule, Step
from ..engine.registers import Registers
from ..kernels.reference import dot, per_image
from ..latents import Parts, parts_of
from ..operators import Operator
from .latino import Reencoded, penalties
from .solver import Grid, Solver, check_fraction

__all__ = ["ReSample"]

DIFFERENCE = 1e-2
"""The length of the difference for the line search, relative to the latent."""


class Descended(Rule):
    """r: z* - x0hat, where z* is found by steepest descent on ||y - H D(z)||^2 from x0hat."""

    reads, writes = (("x", 0), ("F", 0)), ("r",)

    def __init__(self, iterations: int, noise_std: float) -> None:
        self.iterations, self.noise_std = iterations, noise_std

    def fill(self, step: Step, registers: Registers) -> tuple[()]:
        parts, x0hat = parts_of(registers.operator), registers.estimate(step)
        z = x0hat
        for _ in range(self.iterations):
            z = z + self.move(parts, z, registers.measurement)
        registers["r", 0].copy_(z - x0hat)
        return ()

    def move(self, parts: Parts, z: Tensor, y: Tensor) -> Tensor:
        """The step along the gradient to the least misfit of the linearised map, zero where y is explained already."""
        misfits: list[Tensor] = []

        def cotangent(image: Tensor) -> Tensor:
            misfits.append(y - parts.pixels.forward(image))
            return parts.pixels.adjoint(misfits[0])

        direction, misfit = parts.pull_decoder(z, cotangent), misfits[0]
        length, size = dot(direction, direction).sqrt(), dot(z, z).sqrt()
        floor = torch.finfo(z.dtype).tiny
        delta = (DIFFERENCE * size.where(size > 0, math.sqrt(z[0].numel())) / length.clamp_min(floor)).to(z.dtype)
        moved = parts.pixels.forward(parts.decode(z + per_image(delta, z) * direction))
        change = (moved - (y - misfit)) / per_image(delta, misfit)
        square, left = dot(change, change), dot(misfit, misfit)
        explained = left <= self.noise_std**2 * y[0].numel()
        step = torch.where((square > 0) & ~explained, dot(misfit, change) / square.clamp_min(floor), 0.0)
        return per_image(step.to(z.dtype), z) * direction


@dataclass(frozen=True)
class ReSample(Solver):
    """z* explains the measurement, and the next state is drawn from what z* and the step of DDIM say of it:

        x' = c mu' z* + (1 - c) (mu' x0hat + sigma' eps) + sqrt(c) sigma' z,   c = v/(v + sigma'^2),
        v  = gamma sigma'^2 (1 - rho'^2/rho^2)

    where v is ``gamma`` times the variance of ancestral noise, as in the released code. The last step is
    mu' z* + sigma' eps.

        space       z*
        "images"    E(D(x0hat) + H+ (y - H D(x0hat))), the limit of descent on images, and with noise in the
                    measurement the proximal step of ``LATINO``; no derivative is taken
        "latents"   ``iterations`` steps of steepest descent on ||y - H D(z)||^2 from x0hat, each with one derivative
                    of the decoder; an image stops where noise alone explains its misfit

    The released code descends by AdamW, on images first and on latents in the last part of a run. In between it takes
    steps of DPS, which are left out here: all steps are hard.

    Args:
        gamma: weight of z* against the state, >= 0.
        space: "images" or "latents".
        iterations: number of steps of descent on latents.
        eta: fresh noise of the step of DDIM, in [0, 1].
    """

    gamma: float = 40.0
    space: str = "images"
    iterations: int = 5
    eta: float = 0.0

    takes_noise = True
    needs_singular_values = False
    takes_decoded = True

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < math.inf:
            raise ValueError(f"gamma: must be a finite number >= 0, got {self.gamma}")
        if self.space not in ("images", "latents"):
            raise ValueError(f"space: must be 'images' or 'latents', got {self.space!r}")
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 1:
            raise ValueError(f"iterations: must be a positive integer, got {self.iterations!r}")
        check_fraction("eta", self.eta)

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        part = self.gamma * (1.0 - np.square(grid.schedule.rho(grid.t_to) / grid.schedule.rho(grid.t)))
        c = part / (1.0 + part)
        last = np.arange(len(c)) == len(c) - 1
        drawn, noise = np.where(last, 0.0, c), np.where(last, 0.0, grid.ddim_noise(self.eta))
        direction = (1.0 - drawn) * np.sqrt(np.maximum(grid.sigma_to**2 - noise**2, 0.0))
        rows = grid.rows().add("x", grid.mu_to * grid.p + direction * grid.e)
        rows.add("F", grid.mu_to * grid.q + direction * grid.f).add("r", grid.mu_to * np.where(last, 1.0, c))
        rows.add("z", np.sqrt(drawn * grid.sigma_to**2 + np.square((1.0 - drawn) * noise)))
        if self.space == "images":
            rules = [Reencoded(penalty) for penalty in penalties(grid, 1.0)]
            return rows.add_rule(rules.__getitem__).steps()
        rule = Descended(self.iterations, grid.noise_std)
        return rows.add_rule(lambda k: rule).steps()
