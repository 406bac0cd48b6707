"""PSLD (Rout, Raoof, Daras, Caramanis, Dimakis, Shakkottai, NeurIPS 2023, arXiv 2307.00619): DPS on latents, glued."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..engine.plan import Rule, Step
from ..engine.registers import Registers
from ..latents import Parts, parts_of
from ..operators import Operator
from .dps import unit
from .solver import Grid, Solver, check_fraction, check_weight

__all__ = ["PSLD", "Glued", "glued_direction"]


def glued_direction(parts: Parts, y: Tensor, z: Tensor, zeta: float, gamma: float) -> Tensor:
    """-grad_z (zeta ||y - H D(z)|| + gamma ||g||),   g = z - E(u),   u = D(z) + H^T (y - H D(z)), of every image:

    J_D^T (zeta H^T m/||m|| + gamma (1 - H^T H) J_E^T g/||g||) - gamma g/||g||,   m = y - H D(z)
    """
    glue: list[Tensor] = []
    pixels = parts.pixels

    def cotangent(image: Tensor) -> Tensor:
        misfit = y - pixels.forward(image)
        pulled = zeta * pixels.adjoint(unit(misfit))
        if not gamma:
            return pulled
        completed = image + pixels.adjoint(misfit)

        def gap(encoded: Tensor) -> Tensor:
            glue.append(unit(z - encoded))
            return glue[0]

        back = parts.pull_encoder(completed, gap)
        return pulled + gamma * (back - pixels.adjoint(pixels.forward(back)))

    direction = parts.pull_decoder(z, cotangent)
    return direction - gamma * glue[0] if gamma else direction


class Glued(Rule):
    """r: the direction in which the misfit and the gap between a latent and its completed image fall fastest."""

    reads, writes = (("x", 0), ("F", 0)), ("r",)

    def __init__(self, zeta: float, gamma: float) -> None:
        self.zeta, self.gamma = zeta, gamma

    def fill(self, step: Step, registers: Registers) -> tuple[()]:
        parts, x0hat = parts_of(registers.operator), registers.estimate(step)
        registers["r", 0].copy_(glued_direction(parts, registers.measurement, x0hat, self.zeta, self.gamma))
        return ()


@dataclass(frozen=True)
class PSLD(Solver):
    """x' = mu' x0hat + sqrt(sigma'^2 - s^2) eps + s z - grad_x (zeta ||y - H D(x0hat)|| + gamma ||x0hat - E(u)||)

    with the norm of each image and u = D(x0hat) + H^T (y - H D(x0hat)), which is the decoded estimate with the
    measurement in its place where all singular values are 1. The gradient goes through the network, the decoder and,
    for the second norm, the encoder. ``gamma=0`` is DPS on latents.

    Args:
        zeta: step size of the misfit; 1 in the released code.
        gamma: step size of the gluing; 0.1 in the released code.
        eta: 1 ancestral noise; 0 deterministic, as released.
    """

    zeta: float = 1.0
    gamma: float = 0.1
    eta: float = 0.0

    takes_noise = True
    needs_singular_values = False
    takes_decoded = True

    def __post_init__(self) -> None:
        check_weight("zeta", self.zeta)
        check_weight("gamma", self.gamma)
        check_fraction("eta", self.eta)

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        rule = Glued(self.zeta, self.gamma)
        return grid.ddim(grid.ddim_noise(self.eta)).add("r", grid.p).add("h", grid.q).add_rule(lambda k: rule).steps()
