"""STSL (Rout, Chen, Kumar, Caramanis, Shakkottai, Chu, CVPR 2024, arXiv 2312.00852): moves with a probe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..denoiser import Denoiser
from ..engine.plan import Plan, Rule, Step
from ..engine.registers import Registers
from ..latents import parts_of
from ..operators import Operator
from ..schedules import Array
from .solver import Grid, Solver, check_weight

__all__ = ["STSL"]


class Drawn(Rule):
    """probe: the fresh noise of this step, which its row adds to the state."""

    reads, writes = (("z", 0),), ("probe",)

    def fill(self, step: Step, registers: Registers) -> tuple[()]:
        registers["probe", 0] = registers["z", 0].clone()
        return ()


class Probed(Rule):
    """r: the probe, which is zero in the first step."""

    reads, writes = (("x", 0),), ("r", "probe")

    def fill(self, step: Step, registers: Registers) -> tuple[()]:
        if ("probe", 0) not in registers:
            registers["probe", 0] = torch.zeros_like(registers["x", 0])
        registers["r", 0].copy_(registers["probe", 0])
        return ()


class Misfit(Rule):
    """r: weight J_D^T H^T (y - H D(x0hat)) + factor e, where the probe e is what the state before was further by."""

    writes = ("r",)

    def __init__(self, weight: float, factor: float) -> None:
        self.weight, self.factor = weight, factor
        self.reads = (("x", 0), ("F", 0), *([("x", 1)] if factor else []))

    def fill(self, step: Step, registers: Registers) -> tuple[()]:
        parts, x0hat, y = parts_of(registers.operator), registers.estimate(step), registers.measurement
        r = parts.pull_decoder(x0hat, lambda x: parts.pixels.adjoint(y - parts.pixels.forward(x)))
        r = self.weight * r
        registers["r", 0].copy_(r + self.factor * (registers["x", 1] - registers["x", 0]) if self.factor else r)
        return ()


@dataclass(frozen=True)
class STSL(Solver):
    """``inner`` moves of the state at each time, and a step of DDIM:

        x <- x - grad_x { lam mu^2 ||y - H D(x0hat(x))||^2 + (eta/d) e^T [s(x + e) - s(x)] },   e ~ N(0, 1)

    with the score s = -eps/sigma and d the number of elements of a state. The second term is a probe of the trace of
    the score's Jacobian, whose gradient is (f/sigma) (J(x + e)^T e - J(x)^T e) eta/d with the sign of descent, where
    eps = e x + f F. A move takes two evaluations of the network and two derivatives, at x + e and at x; the very first
    one has e = 0, and with eta = 0 a move takes one evaluation. Where the score is linear, the probe moves nothing.

    Experimental: the paper takes 50 steps of 5 moves and a weight in proportion to 1/sigma_y^2, and no code of its
    authors could be read. The factor mu^2 keeps the moves stable at large noise for lam < 1. Noise in the
    measurement is known to the initial state alone.

    Args:
        lam: step size of the misfit, > 0.
        eta: weight of the probe, >= 0; 0.02 in the paper.
        inner: number of moves at each time, 5 in the paper.
    """

    lam: float = 0.25
    eta: float = 0.02
    inner: int = 5

    takes_noise = True
    needs_singular_values = False
    takes_decoded = True

    def __post_init__(self) -> None:
        if check_weight("lam", self.lam) == 0:
            raise ValueError(f"lam: must be > 0, got {self.lam}")
        check_weight("eta", self.eta)
        if isinstance(self.inner, bool) or not isinstance(self.inner, int) or self.inner < 1:
            raise ValueError(f"inner: must be a positive integer, got {self.inner!r}")

    @property
    def evaluations(self) -> int:
        """The number of evaluations of a move."""
        return 2 if self.eta else 1

    def plan(self, denoiser: Denoiser, operator: Operator, times: Array, noise_std: float = 0.0) -> Plan:
        """The plan for a grid of times, or for the grid of such a plan, in which all times but the last repeat."""
        alone = times[np.append(True, np.diff(times) != 0)]
        repeated = np.append(np.repeat(alone[:-1], self.evaluations * self.inner + 1), alone[-1])
        return super().plan(denoiser, operator, repeated, noise_std)

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        total = self.evaluations * self.inner
        place = np.arange(len(grid.t)) % (total + 1)
        ends = place == total
        moves = ~ends & (place % self.evaluations == self.evaluations - 1)
        probes = ~ends & ~moves
        # A move and a step of DDIM, but not the last of either, leave the state at x + e.
        leaves = (moves & (place < total - 1)) | ends
        leaves[-1] = False
        leaves &= bool(self.eta)
        weight = 2.0 * self.lam * grid.mu**2
        probe = self.eta * grid.f / (grid.sigma * np.prod(operator.shape))
        factor = -probe / grid.q
        rows = grid.rows()
        rows.add("x", np.where(ends, grid.mu_to * grid.p + grid.sigma_to * grid.e, 1.0))
        rows.add("F", np.where(ends, grid.mu_to * grid.q + grid.sigma_to * grid.f, 0.0))
        rows.add("r", moves * grid.p).add("h", moves * grid.q).add(
            "probe", -1.0 * (probes & (np.arange(len(place)) > 0))
        )
        # r holds the probe, too, which a move takes with J^T alone.
        extra = np.where(moves, grid.p * factor, 0.0)
        rows.add("x", extra).add("x", -extra, age=1)
        rows.add("h", moves * probe, age=1).add("z", 1.0 * leaves)
        drawn, probed = Drawn(), Probed()

        def residual(k: int) -> Rule | None:
            return Misfit(float(weight[k]), float(factor[k])) if moves[k] else probed if probes[k] else None

        return rows.add_rule(residual).add_rule(lambda k: drawn if leaves[k] else None).steps()
