"""The rows of all steps of a solver, written column by column and handed out as the steps of a plan."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import numpy as np

from ..engine.plan import Rule, Step, Term
from ..engine.spectrum import SpectralTable
from ..kernels.row import Key
from ..schedules import Array

__all__ = ["Rows"]


class Rows:
    """Terms whose coefficients are arrays over the steps; what is zero in a step has no term there.

    The network is differentiated with respect to its input c_in x, so that (dF/dx)^T r is c_in h. Coefficients are
    given for that product with respect to the state, and c_in is folded into them here and nowhere else.

    Args:
        times, network_times, c_in, p, q: of every step, as ``Step`` has them.
    """

    def __init__(self, times: Array, network_times: Array, c_in: Array, p: Array, q: Array) -> None:
        self._heads = [np.asarray(column) for column in (times, network_times, c_in, p, q)]
        self._numbers: dict[tuple[Key, bool], Array] = {}
        self._elements: list[tuple[Key, bool, Array]] = []
        self._spectra: list[tuple[Key, SpectralTable, Hashable]] = []
        self._weight: tuple[SpectralTable, Hashable] | None = None
        self._rules: list[list[Rule]] = [[] for _ in times]

    def add(self, register: str, a: Array | float, age: int = 0, projected: bool = False) -> Rows:
        """Add a times the register of ``age`` steps ago, or times its projection.

        Args:
            a: one number, or one for every step; or for every step coefficients of each image (n, B, 1, 1, 1) or of
                each element (n, C, H, W), (n, B, C, H, W).
        """
        a, key = np.asarray(a, dtype=np.float64), ((register, age), projected)
        if a.ndim and len(a) != len(self._rules):
            name = f"{register}{age or ''}"
            raise ValueError(f"row: {name} must have {len(self._rules)} steps, got shape {a.shape}")
        if a.ndim > 1:
            self._elements.append((*key, a))
        else:
            self._numbers[key] = self._numbers.get(key, 0.0) + np.broadcast_to(a, (len(self._rules),))
        return self

    def scale(self, factor: Array) -> Rows:
        """Multiply all numbers so far with a number of every step."""
        self._numbers = {key: factor * column for key, column in self._numbers.items()}
        return self

    def add_spectra(self, table: SpectralTable, registers: Mapping[Hashable, Key]) -> Rows:
        """Add V f V^T T for columns f of a table, by their names, and the registers T that they belong to."""
        self._spectra += [(key, table, name) for name, key in registers.items()]
        return self

    def weigh(self, table: SpectralTable, name: Hashable) -> Rows:
        """Let a column of a table be the weight of the residual."""
        self._weight = table, name
        return self

    def add_rule(self, rule_of: Callable[[int], Rule | None]) -> Rows:
        """Give every step k the rule that ``rule_of(k)`` returns, if any."""
        for k, rules in enumerate(self._rules):
            rule = rule_of(k)
            if rule is not None:
                rules.append(rule)
        return self

    def steps(self) -> tuple[Step, ...]:
        """The steps of a plan."""
        heads = zip(*(column.tolist() for column in self._heads), strict=True)
        numbers = [(key, 1.0 if p else None, column.tolist()) for (key, p), column in self._numbers.items()]
        return tuple(self._step(k, head, numbers) for k, head in enumerate(heads))

    def _step(self, k: int, head: tuple[float, ...], numbers: list[tuple[Key, float | None, list[float]]]) -> Step:
        terms = []
        for key, modes, column in numbers:
            if column[k] != 0:
                terms.append(Term(*key, column[k] * self._fold(k, key), modes))
        for key, projected, column in self._elements:
            if np.any(column[k] != 0):
                terms.append(Term(*key, column[k] * self._fold(k, key), 1.0 if projected else None))
        for key, table, name in self._spectra:
            if np.any(table.columns[name][k] != 0):
                terms.append(Term(*key, self._fold(k, key), table.at(name, k)))
        weight = 1.0 if self._weight is None else self._weight[0].at(self._weight[1], k)
        time, network_time, c_in, p, q = head
        return Step(time, network_time, c_in, p, q, tuple(terms), weight, tuple(self._rules[k]))

    def _fold(self, k: int, key: Key) -> float:
        register, age = key
        return float(self._heads[2][k - age]) if register == "h" and age <= k else 1.0
