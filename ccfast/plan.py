"""The Plan: a sampler written as a table of float64 coefficients.

Row k takes the state from times[k] to times[k + 1]. With F the network's output, x0hat = p x + q F, r the residual
H+ y - P x0hat, h = (dF/dx)^T r and z fresh unit noise,

    x' = x[k] x + F[k] F + r[k] r + h[k] h + Px[k] P x + PF[k] P F + Ph[k] P h + ybar[k] H+ y + z[k] z

A term that is zero in every row costs nothing: without h and Ph there is no VJP, without r no residual.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from .schedules import Array

__all__ = ["TERMS", "Plan"]

TERMS = ("x", "F", "r", "h", "Px", "PF", "Ph", "ybar", "z")


@dataclass(frozen=True)
class Plan:
    """The coefficients of every step, written once by a solver and only looked up by the engine.

    Attributes:
        solver: what wrote it, for messages.
        times: (n + 1,) schedule times, first to last.
        mu, sigma: (n + 1,) of the path at those times.
        network_times, c_in, p, q: (n,) network time, input scale and x0hat = p x + q F at the start of each step.
        update: coefficient (n,) of every term of ``TERMS`` that some step uses.
    """

    solver: str
    times: Array
    mu: Array
    sigma: Array
    network_times: Array
    c_in: Array
    p: Array
    q: Array
    update: Mapping[str, Array]

    def __post_init__(self) -> None:
        steps = len(self.times) - 1
        used = {}
        for name, column in self.update.items():
            if name not in TERMS:
                raise ValueError(f"update: terms are {', '.join(TERMS)}, got {name!r}")
            column = np.broadcast_to(np.asarray(column, dtype=np.float64), (steps,)).copy()
            if not np.all(np.isfinite(column)):
                raise ValueError(f"update: the coefficients of {name} must be finite, got {column.tolist()}")
            if np.any(column != 0):
                used[name] = column
        object.__setattr__(self, "update", MappingProxyType(used))
        for column in (self.times, self.mu, self.sigma, self.network_times, self.c_in, self.p, self.q, *used.values()):
            column.setflags(write=False)

    @property
    def steps(self) -> int:
        """Number of steps, each one network evaluation."""
        return len(self.times) - 1

    @property
    def vjp_steps(self) -> int:
        """Number of steps that differentiate the network."""
        return sum(bool({"h", "Ph"} & row.keys()) for row in self.rows())

    def rows(self) -> list[dict[str, float]]:
        """The non-zero coefficients of each step, by term."""
        return [{name: float(c[k]) for name, c in self.update.items() if c[k] != 0} for k in range(self.steps)]

    def __str__(self) -> str:
        names = ["t", "network t", "sigma", *self.update]
        columns = [self.times[:-1], self.network_times, self.sigma[:-1], *self.update.values()]
        lines = [f"{self.solver}: {self.steps} steps, t = {self.times[0]:g} to {self.times[-1]:g}"]
        lines.append("".join(f"{name:>12}" for name in names))
        lines += ["".join(f"{column[k]:12.5g}" for column in columns) for k in range(self.steps)]
        return "\n".join(lines)
