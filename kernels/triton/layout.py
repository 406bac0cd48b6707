"""Which coefficients a row has, known when a kernel is compiled, and their values, a table on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["RESIDUAL", "Layout", "table_of"]


class Layout(NamedTuple):
    """Bit sets of the terms of a row, by position: those with an a_k and those with a b_k (``Row.layout``)."""

    direct: int
    projected: int
    residual: bool = False


RESIDUAL = Layout(0b001, 0b110, residual=True)
"""ybar - P (p x + q F), of the terms ybar, x and F."""


def table_of(values: Sequence[float], like: Tensor) -> Tensor:
    """Coefficients as the kernels read them, on the device of ``like``."""
    return torch.tensor(values, dtype=torch.float32, device=like.device)
