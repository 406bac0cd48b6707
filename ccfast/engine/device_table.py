"""The numbers of a bound program as one float32 tensor on the device, for backends that read them from a pointer.

Kernels that read their numbers from memory serve every plan whose rows have the same terms: a captured graph needs only
other contents in the same tensor. Every block starts at a multiple of 16 bytes, for which Triton specialises kernels:

    start          the row of the first state
    prepare[k]     the row that makes the network's first input at step k = 0 or 1
    residual[k]    p, q, or the row of a weighted residual
    update[k]      the row of step k

The block of a row is ``Row.values``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["DeviceTable", "Views"]

ALIGNMENT = 4
"""The number of floats, 16 bytes, at whose multiples blocks start."""


class Views(NamedTuple):
    """The blocks of a table, as views of one tensor."""

    start: Tensor
    prepare: list[Tensor]
    residual: list[Tensor]
    update: list[Tensor]


class DeviceTable:
    """All blocks of a program in one tensor, ``values``, on a device."""

    def __init__(
        self,
        start: list[float],
        prepare: Sequence[list[float]],
        residual: Sequence[list[float]],
        update: Sequence[list[float]],
        device: torch.device,
    ) -> None:
        self._steps, self._places = len(update), [0]
        blocks = [start, *prepare, *residual, *update]
        self._sizes = [len(values) for values in blocks]
        flat: list[float] = []
        for values in blocks:
            flat += values + [0.0] * (-len(values) % ALIGNMENT)
            self._places.append(len(flat))
        self.values = torch.tensor(flat, dtype=torch.float32, device=device)

    def views(self, values: Tensor) -> Views:
        """The blocks of a tensor that is laid out as ``values`` is."""
        start, first, second, *rest = (
            values[place : place + size] for place, size in zip(self._places, self._sizes, strict=False)
        )
        return Views(start, [first, second], rest[: self._steps], rest[self._steps :])
