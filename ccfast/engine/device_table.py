"""The coefficients of a program as one float32 tensor on the device, for backends that read them from a pointer.

Kernels that read their numbers from memory serve every plan of the same rows: a captured graph needs only other
contents in the same tensor. Blocks, each at a multiple of 16 bytes (which Triton specialises on):

    start          direct and projected of the first state's row {z: sigma, x: mu}, and 1
    prepare[k]     of the row {x: 1} that makes the network's first input at step k = 0 or 1, and c_in(k)
    residual[k]    p, q
    update[k]      direct (n), projected (n), c_in(k + 1) over the n registers of row k
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Table", "Views", "block"]

ALIGNMENT = 4
"""Floats: 16 bytes."""


class Views(NamedTuple):
    """The blocks of a table."""

    start: Tensor
    prepare: list[Tensor]
    residual: list[Tensor]
    update: list[Tensor]


def block(row: Mapping[str, float], c_in: float) -> list[float]:
    """A row as kernels read it: coefficients of T and of PT over the registers T in the order of the row, and c_in."""
    names = list(dict.fromkeys(name.removeprefix("P") for name in row))
    return [*(row.get(name, 0.0) for name in names), *(row.get("P" + name, 0.0) for name in names), c_in]


class Table:
    """All blocks of a program.

    Args:
        start: the row of the first state.
        prepare: the row that makes the network's input from a given state.
        rows, p, q, c_in: of every step; c_in has one more.
        device: where ``values`` lies.
    """

    def __init__(
        self,
        start: Mapping[str, float],
        prepare: Mapping[str, float],
        rows: Sequence[Mapping[str, float]],
        p: Sequence[float],
        q: Sequence[float],
        c_in: Sequence[float],
        device: torch.device,
    ) -> None:
        self._steps, self._places = len(rows), [0]
        blocks = [block(start, 1.0), *(block(prepare, c_in[k]) for k in (0, 1)), *map(list, zip(p, q, strict=True))]
        blocks += [block(row, c_in[k + 1]) for k, row in enumerate(rows)]
        self._sizes = [len(values) for values in blocks]
        flat: list[float] = []
        for values in blocks:
            flat += values + [0.0] * (-len(values) % ALIGNMENT)
            self._places.append(len(flat))
        self.values = torch.tensor(flat, dtype=torch.float32, device=device)

    def views(self, values: Tensor) -> Views:
        """The blocks of a tensor like ``values``."""
        start, first, second, *rest = (
            values[place : place + size] for place, size in zip(self._places, self._sizes, strict=False)
        )
        return Views(start, [first, second], rest[: self._steps], rest[self._steps :])
