"""The Plan: a sampler written as a table of float64 coefficients over named registers.

Row k takes the state from times[k] to times[k + 1]. The registers are the state x, the network's output F
(x0hat = p x + q F), the residual r = H+ y - P x0hat, the product h = (dF/dx)^T r, ybar = H+ y, fresh unit noise z, and
what x, F, r and h were in earlier steps: x1 is the state of the step before, F2 the output of two steps ago. T stands
for a register, PT for its projection:

    x' = sum_T a_T[k] T + P sum_T b_T[k] T

A term that is zero in every row costs nothing: without h there is no derivative, without r no residual, and only the
history that some row names is kept. Beyond that a plan may carry

    elements     coefficients a_T[k], b_T[k] that differ from element to element of the image (P(b_T T) then)
    fields       V diag(f_T(s)) V^T T, coefficients over the singular values s of the operator (``engine.fields``), and
                 with the name "weight" the factor omega(s) of the residual: r = V omega V^T (H+ y - x0hat)
    reduction    coefficients of one image each, from dot products taken on the device
    residual     another rule for r than H+ y - P x0hat, from H and H^T themselves
    auxiliary    tensors of its own that a rule changes in every step, the first of which is the register u
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..operators import Operator
from ..schedules import Array
from .fields import Fields

__all__ = ["DEPTH", "TERMS", "Auxiliary", "Plan", "Reduction", "Residual", "Term", "parse"]

TERMS = ("x", "F", "r", "h", "Px", "PF", "Ph", "ybar", "z")
"""The terms of the common rows, which look back at nothing."""

DEPTH = 3
"""How many steps back a register may reach."""


Residual = Callable[[Operator, Tensor, Tensor], Tensor]
"""A rule for r: of the operator, y and x0hat, an image. It must not wait for the device."""


class Term(NamedTuple):
    """A term of a row: the register, how many steps ago, and whether it is projected."""

    register: str
    age: int
    projected: bool


def parse(name: str) -> Term:
    """The term that a name such as "x", "Ph" or "PF2" stands for, or ValueError."""
    match = re.fullmatch(rf"(P?)(?:(ybar|z|u)|([xFrh])([1-{DEPTH}]?))", name)
    if match is None:
        raise ValueError(f"update: terms are x, F, r, h, ybar, z, u, with P before or 1 to {DEPTH} after, got {name!r}")
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


class Auxiliary(ABC):
    """State-like tensors that a sampler carries beside the state, such as the moments of an optimiser.

    Attributes:
        slots: how many. The first begins as the mean of the initial state, mu apart, and the others as zero.
    """

    slots: int

    @abstractmethod
    def take(
        self, operator: Operator, y: Tensor, k: int, registers: Mapping[str, Tensor], slots: Sequence[Tensor]
    ) -> None:
        """Change the slots in place, before the row of step k. It must not wait for the device."""


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
        product: how h is taken: a name of ``ccfast.engine.jacobian.PRODUCTS``.
        noise_std: of the measurement, in the data range; it shrinks the initial state.
        residual: the rule for r, or None for H+ y - P x0hat (with the weight of the fields).
        auxiliary: the rule for u, or None.
        elements: coefficients of every element, which add to those of ``update``: (n, C, H, W), or (n, B, C, H, W) with
            those of every image of a batch, where any dimension but the first may be 1 ((n, C, L) for signals).

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
    residual: Residual | None = None
    auxiliary: Auxiliary | None = None
    elements: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps = len(self.times) - 1
        columns = {name: np.broadcast_to(column, (steps,)) for name, column in self.update.items()}
        object.__setattr__(self, "update", self._used("update", columns))
        object.__setattr__(self, "elements", self._used("elements", self.elements))
        if self.auxiliary is None and any(parse(name).register == "u" for name in (*self.update, *self.elements)):
            raise ValueError(f"update: u needs an auxiliary, got none in {self.solver}")
        if self.residual is not None and self.fields is not None and "weight" in self.fields.table:
            raise ValueError(f"residual: must be None where the fields have a weight, got {self.residual!r}")
        used = (*self.update.values(), *self.elements.values())
        for column in (self.times, self.mu, self.sigma, self.network_times, self.c_in, self.p, self.q, *used):
            column.setflags(write=False)

    def _used(self, what: str, columns: Mapping[str, Array]) -> Mapping[str, Array]:
        """Copies in float64 of the columns that are not zero, checked."""
        used = {}
        for name, given in columns.items():
            age, column = parse(name).age, np.array(given, dtype=np.float64)
            if column.ndim == 0 or len(column) != self.steps:
                raise ValueError(f"{what}: {name} must have {self.steps} steps, got shape {column.shape}")
            if not np.all(np.isfinite(column)):
                raise ValueError(f"{what}: the coefficients of {name} must be finite, got {column.tolist()}")
            if np.any(column[:age] != 0):
                raise ValueError(f"{what}: {name} does not exist before step {age}, got {column.tolist()}")
            if np.any(column != 0):
                used[name] = column
        return MappingProxyType(used)

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
        names += [name for name, column in self.elements.items() if np.any(column[k] != 0)]
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
        if self.elements:
            lines.append("and for each element " + ", ".join(self.elements))
        if self.fields is not None:
            lines.append(str(self.fields))
        if self.reduction is not None:
            lines.append("and for each image " + ", ".join(self.reduction.terms))
        return "\n".join(lines)
