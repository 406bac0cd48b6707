"""Fields: coefficients that depend on the singular value, as a table over few nodes and as tensors over all modes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from ..operators import Operator
from ..schedules import Array

__all__ = ["NODES", "Fields", "interpolate", "nodes"]

NODES = 512
"""Most singular values at which a solver is asked for coefficients."""


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


class Fields:
    """Coefficients of every step over the singular values of an operator.

    Args:
        evaluate: called with singular values (M,) > 0; returns a float64 (n, M) for every name: a register of
            ``ccfast.engine.plan`` (the term V f(s) V^T T), or "weight", the factor omega(s) of the residual.
        operator: the one that the plan is made for. Any other may be given to ``on``.

    Attributes:
        nodes, table: the singular values asked for, and what was answered without what is zero; read-only.

    Raises:
        ValueError: coefficients that are not finite.
    """

    def __init__(self, evaluate: Callable[[Array], Mapping[str, Array]], operator: Operator) -> None:
        self._evaluate = evaluate
        self.nodes = nodes(operator)
        self.table = self._ask(self.nodes)

    def _ask(self, s: Array) -> dict[str, Array]:
        table = {name: np.asarray(values) for name, values in self._evaluate(s).items() if np.any(values != 0)}
        for name, values in table.items():
            if not np.all(np.isfinite(values)):
                raise ValueError(f"fields: the coefficients of {name} must be finite, got {values.tolist()}")
            values.setflags(write=False)
        return table

    def names(self, k: int) -> list[str]:
        """The registers that step k multiplies with a field."""
        return [name for name, values in self.table.items() if name != "weight" and np.any(values[k] != 0)]

    def on(self, operator: Operator, like: Tensor) -> list[dict[str, Tensor]]:
        """The fields of each step over the modes of an operator, in the dtype and on the device of ``like``."""
        at = nodes(operator)
        table = self.table if np.array_equal(at, self.nodes) else self._ask(at)
        if not table:
            return []
        rows = np.concatenate(list(table.values()))
        modes = torch.from_numpy(interpolate(at, rows, operator.singular_values.numpy())).to(like)
        steps = len(rows) // len(table)
        return [
            {
                name: modes[i * steps + k]
                for i, name in enumerate(table)
                if name == "weight" or np.any(table[name][k] != 0)
            }
            for k in range(steps)
        ]

    def __str__(self) -> str:
        low, high = self.nodes[[0, -1]]
        return f"and fields over {len(self.nodes)} singular values, {low:g} to {high:g}: {', '.join(self.table)}"
