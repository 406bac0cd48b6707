"""The Plan: a sampler written as a table of float64 coefficients over named registers.

Row k takes the state from times[k] to times[k + 1]. The registers are the state x, the network's output F
(x0hat = p x + q F), the residual r = H+ y - P x0hat, the product h = (dF/dx)^T r, ybar = H+ y, fresh unit noise z, and
what x, F, r and h were in earlier steps: x1 is the state of the step before, F2 the output of two steps ago. T stands
for a register, PT for its projection:

    x' = sum_T a_T[k] T + P sum_T b_T[k] T

A term that is zero in every row costs nothing: without h there is no derivative, without r no residual, and only the
history that some row names is kept. Beyond that a plan may carry

    fields       V diag(f_T(s)) V^T T, coefficients over the singular values s of the operator (``ccfast.fields``), and
                 with the name "weight" the factor omega(s) of the residual: r = V omega V^T (H+ y - x0hat)
    reduction    coefficients of one image each, from dot products taken on the device
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from torch import Tensor

from .fields import Fields
from .schedules import Array

__all__ = ["DEPTH", "TERMS", "Plan", "Reduction", "Term", "parse"]

TERMS = ("x", "F", "r", "h", "Px", "PF", "Ph", "ybar", "z")
"""The terms of the common rows, which look back at nothing."""

DEPTH = 3
"""How many steps back a register may reach."""


class Term(NamedTuple):
    """A term of a row: the register, how many steps ago, and whether it is projected."""

    register: str
    age: int
    projected: bool


def parse(name: str) -> Term:
    """The term that a name such as "x", "Ph" or "PF2" stands for, or ValueError."""
    match = re.fullmatch(rf"(P?)(?:(ybar|z)|([xFrh])([1-{DEPTH}]?))", name)
    if match is None:
        raise ValueError(f"update: terms are x, F, r, h, ybar, z, with P before or 1 to {DEPTH} after, got {name!r}")
    projected, alone, aged, age = match.groups()
    return Term(alone or aged, int(age or 0), bool(projected))


@dataclass(frozen=True)
class Reduction:
    """Coefficients that differ from image to image, from dot products of registers; nothing leaves the device.

    Attributes:
        vectors: linear combinations of registers, by name: coefficient (n,) of every term.
        dots: pairs of vectors, by name; each becomes a (B,) tensor of inner products.
        coefficients: called as coefficients(k, dots) with those of the pairs whose vectors are not zero in step k;
            returns (B,) tensors by term, which are added to the row.
        terms: names of the terms that are taken from ``coefficients``.
        first: the first step that is reduced.
    """

    vectors: Mapping[str, Mapping[str, Array]]
    dots: Mapping[str, tuple[str, str]]
    coefficients: Callable[[int, Mapping[str, Tensor]], Mapping[str, Tensor]]
    terms: tuple[str, ...]
    first: int = 0


@dataclass(frozen=True)
class Plan:
    """The coefficients of every step, written once by a solver and only looked up by the engine.

    Attributes:
        solver: what wrote it, for messages.
        times: (n + 1,) schedule times, first to last.
        mu, sigma: (n + 1,) of the path at those times.
        network_times, c_in, p, q: (n,) network time, input scale and x0hat = p x + q F at the start of each step.
        update: coefficient (n,) of every term that some step uses.
        fields: coefficients over singular values, or None.
        reduction: coefficients of one image each, or None.
        product: how h is taken: a name of ``ccfast.products.PRODUCTS``.
        noise_std: of the measurement, in the data range; it shrinks the initial state.

    Raises:
        ValueError: an unknown term, a coefficient that is not finite, or history used before there is any.
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
    fields: Fields | None = None
    reduction: Reduction | None = None
    product: str = "reverse"
    noise_std: float = 0.0

    def __post_init__(self) -> None:
        steps = len(self.times) - 1
        used = {}
        for name, column in self.update.items():
            age = parse(name).age
            column = np.broadcast_to(np.asarray(column, dtype=np.float64), (steps,)).copy()
            if not np.all(np.isfinite(column)):
                raise ValueError(f"update: the coefficients of {name} must be finite, got {column.tolist()}")
            if np.any(column[:age] != 0):
                raise ValueError(f"update: {name} does not exist before step {age}, got {column.tolist()}")
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
        """Number of steps that take a product with the network's Jacobian."""
        return sum("h" in self.registers(k) for k in range(self.steps))

    def rows(self) -> list[dict[str, float]]:
        """The non-zero coefficients of each step, by term."""
        return [{name: float(c[k]) for name, c in self.update.items() if c[k] != 0} for k in range(self.steps)]

    def terms(self, k: int) -> set[Term]:
        """Every term that step k reads, in whatever way."""
        names = [name for name, column in self.update.items() if column[k] != 0]
        if self.fields is not None:
            names += self.fields.names(k)
        if self.reduction is not None and k >= self.reduction.first:
            names += self.reduction.terms
            names += [name for vector in self.reduction.vectors.values() for name, c in vector.items() if c[k] != 0]
        return {parse(name) for name in names}

    def registers(self, k: int) -> set[str]:
        """The registers that step k must fill, for itself and for the steps that look back at it."""
        filled = {
            term.register
            for later in range(k, min(k + DEPTH + 1, self.steps))
            for term in self.terms(later)
            if term.age == later - k
        }
        return filled | {"r"} if "h" in filled else filled

    def depth(self) -> dict[str, int]:
        """How many steps back each register is read, for those that are."""
        depth: dict[str, int] = {}
        for k in range(self.steps):
            for register, age, _ in self.terms(k):
                if age:
                    depth[register] = max(age, depth.get(register, 0))
        return depth

    def __str__(self) -> str:
        names = ["t", "network t", "sigma", *self.update]
        columns = [self.times[:-1], self.network_times, self.sigma[:-1], *self.update.values()]
        lines = [f"{self.solver}: {self.steps} steps, t = {self.times[0]:g} to {self.times[-1]:g}"]
        lines.append("".join(f"{name:>12}" for name in names))
        lines += ["".join(f"{column[k]:12.5g}" for column in columns) for k in range(self.steps)]
        if self.fields is not None:
            lines.append(str(self.fields))
        if self.reduction is not None:
            lines.append("and for each image " + ", ".join(self.reduction.terms))
        return "\n".join(lines)
