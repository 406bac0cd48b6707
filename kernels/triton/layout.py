"""The layout of a row, for which a kernel is compiled, and the table of its coefficients on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["RESIDUAL", "Layout", "table_of"]


class Layout(NamedTuple):
    """The terms of a row that have an a_k and those that have a b_k, as sets of bits by position (``Row.layout``)."""

    direct: int
    projected: int
    residual: bool = False


RESIDUAL = Layout(0b001, 0b110, residual=True)
"""The layout of ybar - P (p x + q F), whose terms are ybar, x and F."""


def table_of(values: Sequence[float], like: Tensor) -> Tensor:
    """Coefficients as a float32 tensor on the device of ``like``, which the kernels read."""
    return torch.tensor(values, dtype=torch.float32, device=like.device)
