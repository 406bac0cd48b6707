"""Coefficients that depend on the singular value: a table over few of them, and tensors over all modes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, from_numpy

from ..operators import Operator
from ..schedules import Array

__all__ = ["NODES", "SpectralTable", "Spectrum", "interpolate", "nodes"]

NODES = 512
"""The most singular values at which a solver is asked for coefficients."""


def nodes(operator: Operator) -> Array:
    """The distinct singular values of an operator, or where there are more than 512 as many log-spaced ones."""
    s = np.unique(operator.singular_values.numpy())
    s = s[s > 0]
    return s if len(s) <= NODES else np.geomspace(s[0], s[-1], NODES)


def interpolate(at: Array, table: Array, s: Array) -> Array:
    """Columns of ``table`` (K, M) over ``at`` (M,) at other values s (any shape, 0 gives 0): (K, *s.shape).

    Where every s is one of ``at``, its column is looked up. Otherwise ``at`` is log-spaced (Lagrange polynomials of
    degree 5 in ln s): as functions of ln s the coefficients change over distances of about 1, so that 512 nodes over
    ten decades leave an error below 1e-7, and over the usual four below 1e-10.
    """
    positive = s > 0
    values = s[positive]
    out = np.zeros((len(table), *s.shape), dtype=np.float64)
    index = np.searchsorted(at, values).clip(max=len(at) - 1)
    if np.array_equal(at[index], values):
        out[:, positive] = table[:, index]
        return out
    place = (np.log(values) - np.log(at[0])) * ((len(at) - 1) / np.log(at[-1] / at[0]))
    first = np.clip(np.floor(place).astype(np.int64) - 2, 0, len(at) - 6)
    offset = place - first
    total = np.zeros((len(values), len(table)), dtype=np.float64)
    rows = np.ascontiguousarray(table.T)
    for i in range(6):
        weight = np.ones_like(offset)
        for j in range(6):
            if j != i:
                weight *= (offset - j) / (i - j)
        total += weight[:, None] * rows[first + i]
    out[:, positive] = total.T
    return out


class SpectralTable:
    """Coefficients of every step over the singular values of an operator.

    Args:
        evaluate: called with singular values (M,) > 0; returns a float64 (n, M) for every name.
        operator: the one that the plan is made for. ``on`` takes any other.

    Attributes:
        nodes, columns: the singular values asked for, and what was answered; read-only.

    Raises:
        ValueError: coefficients that are not finite.
    """

    def __init__(self, evaluate: Callable[[Array], Mapping[Any, Array]], operator: Operator) -> None:
        self._evaluate = evaluate
        self.nodes = nodes(operator)
        self.columns = self._ask(self.nodes)

    def _ask(self, s: Array) -> dict[Hashable, Array]:
        columns = {name: np.asarray(values) for name, values in self._evaluate(s).items()}
        for name, values in columns.items():
            if not np.all(np.isfinite(values)):
                raise ValueError(f"row: the coefficients of {name} must be finite, got {values.tolist()}")
            values.setflags(write=False)
        return columns

    def at(self, name: Hashable, step: int) -> Spectrum:
        """The coefficients with this name of one step."""
        return Spectrum(self, name, step)

    def on(self, operator: Operator) -> Modes:
        """The coefficients over the modes of an operator."""
        at = nodes(operator)
        columns = self.columns if np.array_equal(at, self.nodes) else self._ask(at)
        if len(at) == 1:
            return Modes(columns, None)
        table = np.concatenate(list(columns.values()))
        modes = interpolate(at, table, operator.singular_values.numpy())
        steps = len(table) // len(columns)
        return Modes(columns, {name: modes[i * steps : (i + 1) * steps] for i, name in enumerate(columns)})


class Modes(NamedTuple):
    """A ``SpectralTable`` on one operator.

    Attributes:
        columns: (n, M) over the singular values asked for, by name.
        over_modes: (n, *singular_values.shape) by name; None where all singular values are one number.
    """

    columns: Mapping[Hashable, Array]
    over_modes: Mapping[Hashable, Array] | None

    def of(self, spectrum: Spectrum, like: Tensor) -> float | Tensor:
        """A number where all singular values are one number, else a tensor over the modes like ``like``."""
        if self.over_modes is None:
            return float(self.columns[spectrum.name][spectrum.step, 0])
        return from_numpy(self.over_modes[spectrum.name][spectrum.step]).to(like)


class Spectrum(NamedTuple):
    """A coefficient as a function of the singular value: a column of a table, at one step."""

    table: SpectralTable
    name: Hashable
    step: int

    @property
    def values(self) -> Array:
        """What it is at ``table.nodes``."""
        return self.table.columns[self.name][self.step]

    def describe(self) -> str:
        s = self.table.nodes
        return f"{len(s)} singular value{'s' * (len(s) > 1)}, {s[0]:g} to {s[-1]:g}"
