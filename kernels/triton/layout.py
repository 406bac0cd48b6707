"""Which coefficients a row has, known when a kernel is compiled, and their values, a table on the device."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["RESIDUAL", "Layout", "coefficients", "layout", "table_of"]


class Layout(NamedTuple):
    """Terms of a row, by position: their names, and bit sets of those with an a_k and those with a b_k."""

    names: tuple[str, ...]
    direct: int
    projected: int
    residual: bool = False

    @property
    def constants(self) -> tuple[int, int, bool]:
        """DIRECT, PROJECTED and RESIDUAL of every kernel."""
        return self.direct, self.projected, self.residual


RESIDUAL = Layout(("ybar", "x", "F"), 0b001, 0b110, residual=True)
"""ybar - P (p x + q F)."""


@lru_cache
def layout(row: tuple[str, ...]) -> Layout:
    """The terms of a row in the order of their first occurrence, with or without a P."""
    names = tuple(dict.fromkeys(name.removeprefix("P") for name in row))
    direct = sum(1 << k for k, name in enumerate(names) if name in row)
    projected = sum(1 << k for k, name in enumerate(names) if "P" + name in row)
    return Layout(names, direct, projected)


def coefficients(row: Mapping[str, float], what: Layout, c_in: float) -> list[float]:
    """a_0 .. a_K-1, b_0 .. b_K-1, c_in."""
    direct = [row.get(name, 0.0) for name in what.names]
    return [*direct, *(row.get("P" + name, 0.0) for name in what.names), c_in]


def table_of(values: list[float], like: Tensor) -> Tensor:
    """Coefficients as the kernels read them, on the device of ``like``."""
    return torch.tensor(values, dtype=torch.float32, device=like.device)
