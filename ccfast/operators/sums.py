"""Sums over images that depend neither on the number of threads nor on the batch around an image."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sums"]

RUN = 16384
"""Elements added up at once. On the CPU torch shares a single sum of 32768 or more between its threads, several never,
so that the sum of an image alone would differ in the last bits from the one in a batch."""


def sums(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The sum of the elements of every image, (B, ...) to (B,), in ``dtype`` or that of x."""
    x = x.flatten(1)
    runs = x.shape[1] // RUN
    if runs < 2 or x.device.type != "cpu":
        return x.sum(1, dtype=dtype)
    whole = x[:, : runs * RUN].unflatten(1, (runs, RUN)).sum(2, dtype=dtype)
    return whole.sum(1) + x[:, runs * RUN :].sum(1, dtype=dtype)
