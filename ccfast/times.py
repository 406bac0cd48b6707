"""Time grids, and maps from schedule time to the time that a network was trained with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .schedules import Array

__all__ = ["floor_timesteps", "uniform"]


def uniform(start: float, end: float, steps: int) -> Array:
    """``steps`` + 1 equally spaced times from ``start`` to ``end``, float64."""
    return np.linspace(start, end, steps + 1, dtype=np.float64)


def floor_timesteps(count: int) -> Callable[[float], float]:
    """The map t -> floor((count - 1) t) of networks trained on ``count`` integer times (C-PiGDM's public code).

    Args:
        count: number of training times, at least 2.
    """
    if count < 2:
        raise ValueError(f"count: must be at least 2, got {count}")

    def time_map(t: float) -> float:
        return float(int(t * (count - 1)))

    return time_map
