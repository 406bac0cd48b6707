"""Coefficients that depend on the singular value: a table over some of them, and tensors over all modes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, from_numpy

from ..operators import Operator
from ..schedules import Array

__all__ = ["NODES", "SpectralTable", "Spectrum", "distinct", "nodes"]

NODES = 512
"""The most singular values at which a plan shows its coefficients."""

CHUNK = 4096
"""The number of singular values that a solver is asked about at a time, which bounds the memory of its quadrature."""


def distinct(operator: Operator) -> Array:
    """The distinct positive singular values of an operator, in order."""
    s = np.unique(operator.singular_values.numpy())
    return s[s > 0]


def nodes(operator: Operator) -> Array:
    """The distinct singular values of an operator, or where there are more than 512 as many log-spaced ones."""
    s = distinct(operator)
    return s if len(s) <= NODES else np.geomspace(s[0], s[-1], NODES)


class SpectralTable:
    """Coefficients of every step over the singular values of an operator.

    Args:
        evaluate: A function of positive singular values (M,), which returns a float64 array (n, M) for every name,
            with the coefficients of n steps.
        operator: The operator that the plan is made for. ``on`` takes any other.

    Attributes:
        nodes, columns: At most 512 singular values of the operator, and the coefficients there. Both are read-only.

    Raises:
        ValueError: Some coefficients are not finite.
    """

    def __init__(self, evaluate: Callable[[Array], Mapping[Any, Array]], operator: Operator) -> None:
        self._evaluate, self._values = evaluate, distinct(operator)
        self.nodes = nodes(operator)
        self.columns = self._ask(self.nodes)

    def __getstate__(self) -> dict[str, Any]:
        """The function of the solver is pickled as its values at the singular values of the plan's operator."""
        columns = self._over(self._values)
        return {**vars(self), "_evaluate": Recorded(self._values, columns)}

    def _ask(self, s: Array) -> dict[Hashable, Array]:
        columns = {name: np.asarray(values) for name, values in self._evaluate(s).items()}
        for name, values in columns.items():
            if not np.all(np.isfinite(values)):
                raise ValueError(f"row: the coefficients of {name} must be finite, got {values.tolist()}")
            values.setflags(write=False)
        return columns

    def at(self, name: Hashable, step: int) -> Spectrum:
        """The coefficients of one step that have this name."""
        return Spectrum(self, name, step)

    def on(self, operator: Operator) -> Modes:
        """The coefficients over the modes of an operator: the solver is asked about every distinct singular value.

        Nothing is interpolated, since coefficients may have kinks (a minimum of two terms) and steps (a rule that
        changes where a mode is measured well). A mode whose singular value is zero has the coefficient zero.
        """
        at, s = distinct(operator), operator.singular_values.numpy()
        columns = self._over(at)
        if len(at) == 1:
            return Modes(columns, None)
        place = np.searchsorted(at, s).clip(max=len(at) - 1)
        return Modes(columns, {name: np.where(s > 0, table[:, place], 0.0) for name, table in columns.items()})

    def _over(self, s: Array) -> dict[Hashable, Array]:
        if np.array_equal(s, self.nodes):
            return self.columns
        parts = [self._ask(s[first : first + CHUNK]) for first in range(0, len(s), CHUNK)]
        return {name: np.concatenate([part[name] for part in parts], axis=1) for name in self.columns}


class Recorded(NamedTuple):
    """The coefficients of a plan that was pickled or copied, at the singular values of its operator and no others."""

    values: Array
    columns: Mapping[Hashable, Array]

    def __call__(self, s: Array) -> dict[Hashable, Array]:
        place = np.searchsorted(self.values, s).clip(max=len(self.values) - 1)
        if not np.array_equal(self.values[place], s):
            raise ValueError(
                "operator: a plan that was pickled or copied serves operators with the singular values of its own; "
                "plan anew for another"
            )
        return {name: values[:, place] for name, values in self.columns.items()}


class Modes(NamedTuple):
    """A ``SpectralTable`` on one operator.

    Attributes:
        columns: The coefficients of n steps at M distinct singular values, (n, M), by name.
        over_modes: The coefficients over all modes, (n, *singular_values.shape), by name; None where all singular
            values are one number.
    """

    columns: Mapping[Hashable, Array]
    over_modes: Mapping[Hashable, Array] | None

    def of(self, spectrum: Spectrum, like: Tensor) -> float | Tensor:
        """The coefficient as a number where all singular values are one number, else as a tensor like ``like``."""
        if self.over_modes is None:
            return float(self.columns[spectrum.name][spectrum.step, 0])
        return from_numpy(self.over_modes[spectrum.name][spectrum.step]).to(like)

    def alike(self, spectrum: Spectrum) -> float | None:
        """The coefficient where it is one number at all singular values, else None."""
        column = self.columns[spectrum.name][spectrum.step]
        return float(column[0]) if np.all(column == column[0]) else None


class Spectrum(NamedTuple):
    """A coefficient as a function of the singular value: a column of a table, at one step."""

    table: SpectralTable
    name: Hashable
    step: int

    @property
    def values(self) -> Array:
        """The coefficient at ``table.nodes``."""
        return self.table.columns[self.name][self.step]

    def describe(self) -> str:
        s = self.table.nodes
        return f"{len(s)} singular value{'s' * (len(s) > 1)}, {s[0]:g} to {s[-1]:g}"
