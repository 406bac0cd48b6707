"""Rows with coefficients that are tensors (one an image or one an element), and with fields over the modes of H.

A field f stands for V f V^T T. Where all singular values are one number it is f P T, for a mask f T of every element;
any other operator takes the coordinates of the terms one by one and lifts their sum once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import torch
from torch import Tensor

from ...operators import Operator
from .. import reference
from . import ops

__all__ = ["MOST_TERMS", "Rich"]

MOST_TERMS = 24
"""Of a row, as the ops count them: a register once for each coefficient that it has."""


class Terms:
    """The arguments of an op, gathered term by term; numbers of one register share its place."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.direct: list[float] = []
        self.projected: list[float] = []
        self.scales: list[Tensor] = []
        self.scaled: list[int] = []
        self._places: dict[str, int] = {}

    def place(self, tensor: Tensor, name: str | None = None) -> int:
        """Where a tensor is; without a name it gets a new place."""
        if name is None or name not in self._places:
            at = len(self.tensors)
            self.tensors.append(tensor)
            self.direct.append(0.0)
            self.projected.append(0.0)
            if name is None:
                return at
            self._places[name] = at
        return self._places[name]

    def add(self, name: str, tensor: Tensor, coefficient: float | Tensor, projected: bool) -> None:
        """A term of a row."""
        column = self.projected if projected else self.direct
        if isinstance(coefficient, Tensor):
            at = self.place(tensor)
            self.scales.append(coefficient.to(torch.float32))
            self.scaled.append(at)
            column[at] = 1.0
        else:
            column[self.place(tensor, name)] += coefficient


def of_each(number: Tensor, images: Tensor) -> Tensor:
    """One number as that of every image: it stays a tensor, since reading it would be a wait for a device."""
    return number.reshape(1).expand(len(images))


class Rich:
    """The operations of one operator; ``project`` is its plain row."""

    def __init__(self, operator: Operator, project: Callable[..., None]) -> None:
        self.operator, self.project = operator, project
        self.local = operator.kind == "mask"

    def residual(
        self,
        x: Tensor,
        output: Tensor,
        ybar: Tensor,
        p: float,
        q: float,
        out: Tensor,
        weight: Tensor,
        coordinates: Tensor,
    ) -> None:
        """out = V w (coordinates - V^T (p x + q F)), as ``reference.residual`` with a weight."""
        if weight.numel() == 1:
            terms = ([ybar, x, output], [1.0, 0.0, 0.0], [0.0, -p, -q])
            self.project(out, None, 1.0, *terms, [of_each(weight, out)] * 3, [0, 1, 2])
        elif self.local:
            ops.lincomb(out, None, 1.0, [coordinates, x, output], [1.0, -p, -q], [weight] * 3, [0, 1, 2])
        else:
            x0hat = torch.empty(x.shape)
            ops.lincomb(x0hat, None, 1.0, [x, output], [p, q], None, None)
            lifted = self.operator.lift((coordinates - self.operator.down(x0hat)).mul_(weight))
            out.copy_(lifted)

    def update(
        self,
        row: Mapping[str, float | Tensor],
        tensors: Mapping[str, Tensor],
        out: Tensor,
        input_out: Tensor | None,
        c_in: float,
        fields: Mapping[str, Tensor],
    ) -> None:
        """A row of a plan, as ``reference.update``."""
        terms, modes = Terms(), {}
        for name, coefficient in row.items():
            register = name.removeprefix("P")
            terms.add(register, tensors[register], coefficient, register != name)
        for name, field in fields.items():
            if field.numel() == 1:
                terms.add(name, tensors[name], of_each(field, out), True)
            elif self.local:
                terms.add(name, tensors[name], field, False)
            else:
                modes[name] = field
        if len(terms.tensors) >= MOST_TERMS:  # one is left for what the modes add
            return reference.update(self.operator, row, tensors, out, input_out, c_in, fields)
        if modes:
            self._with_modes(terms, modes, tensors, out, input_out, c_in)
        elif any(terms.projected):
            self.project(out, input_out, c_in, terms.tensors, terms.direct, terms.projected, terms.scales, terms.scaled)
        else:
            ops.lincomb(out, input_out, c_in, terms.tensors, terms.direct, terms.scales, terms.scaled)

    def _with_modes(
        self,
        terms: Terms,
        modes: Mapping[str, Tensor],
        tensors: Mapping[str, Tensor],
        out: Tensor,
        input_out: Tensor | None,
        c_in: float,
    ) -> None:
        down = self.operator.down
        parts = [field * down(tensors[name].to(torch.float32)) for name, field in modes.items()]
        if any(terms.projected):
            ops.lincomb(out, None, 1.0, terms.tensors, terms.projected, terms.scales, terms.scaled)
            parts.append(down(out))
        terms.direct[terms.place(self.operator.lift(reduce(torch.add, parts)))] = 1.0
        ops.lincomb(out, input_out, c_in, terms.tensors, terms.direct, terms.scales, terms.scaled)
