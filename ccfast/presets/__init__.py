"""Presets: solver parameters and times found by the documented sweep, for a prior, an operator and a number of steps.

The table is ``table.json`` beside this file; ``python -m training.preset_sweep`` writes it from *training* photographs.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..operators import Inpainting, Operator
from ..solvers import Conjugate

__all__ = ["MODES", "NOISELESS", "Preset", "conjugate", "lookup", "strength"]

TABLE = Path(__file__).parent / "table.json"

MODES: dict[str, dict[str, str | float]] = {
    "auto": {"jacobian": "auto"},
    "one_projection": {"jacobian": "one_projection"},
    "none": {"jacobian": "none"},
    "rayleigh": {"centred": "rayleigh"},
    "auto_refresh": {"jacobian": "auto", "refresh": 1.0},
    "one_projection_refresh": {"jacobian": "one_projection", "refresh": 1.0},
    "none_refresh": {"jacobian": "none", "refresh": 1.0},
}
"""What an entry calls the mode of ``Conjugate`` -> its options."""
NOISELESS = ("rayleigh",)
"""Modes that refuse noise in the measurement."""


class Preset(NamedTuple):
    """What a Sampler takes for ``solver=None``, ``start=None`` and ``end=None``."""

    solver: Conjugate
    start: float
    end: float


def lookup(name: str | None, operator: Operator, steps: int, noise_std: float = 0.0) -> Preset | None:
    """The preset nearest to an operator and a number of steps, None for a prior or an operator without entries.

    Entries of the operator's class are preferred to others of its kind; among them those with noise where the
    measurement has some, and those without where it has none; then the one nearest in noise, in strength (see
    ``strength``) and in steps, in this order, all as ratios.
    """
    entries = [e for e in table() if e["prior"] == name and not (noise_std and e["mode"] in NOISELESS)]
    near = [entry for entry in entries if entry["operator"] == type(operator).__name__]
    near = near or [entry for entry in entries if entry["kind"] == operator.kind]
    near = [entry for entry in near if (entry["noise_std"] > 0) == (noise_std > 0)] or near
    if not near:
        return None
    own = strength(operator)

    def far(entry: dict) -> tuple[float, float, float]:
        noise = distance(entry["noise_std"], noise_std) if noise_std and entry["noise_std"] else 0.0
        return noise, distance(entry["strength"], own), distance(entry["steps"], steps)

    best = min(near, key=far)
    return Preset(conjugate(best["w"], best["mode"]), best["start"], best["end"])


def conjugate(w: float | str, mode: str) -> Conjugate:
    """The solver with a weight and a mode of ``MODES``."""
    return Conjugate(w, **MODES[mode])  # pyright: ignore[reportArgumentType]


def strength(operator: Operator) -> float:
    """How much an operator hides, one number >= 1 to compare operators of one class by.

    For masks 1 + the mean distance, in pixels, of a hidden pixel from an observed one (50 % at random: about 2; a box
    of side n: about 1 + n/6). For other operators the number of pixels for every singular value that is not zero.
    """
    if isinstance(operator, Inpainting):
        return 1.0 + mean_hole_depth(operator.singular_values)
    coordinates = operator.down(torch.zeros(operator.batch or 1, *operator.shape, dtype=torch.float64))[0]
    values = operator.singular_values
    kept = (values[0] if operator.batch is not None else values).expand_as(coordinates)
    return math.prod(operator.shape) / max(1, int((kept > 0).sum()))


def mean_hole_depth(mask: Tensor) -> float:
    """Mean chessboard distance of the hidden pixels of a mask (..., H, W) or (C, L) from the nearest observed pixel."""
    hidden = 1.0 - mask.to(torch.float32).reshape(-1, 1, *(mask.shape[-2:] if mask.ndim > 2 else (1, mask.shape[-1])))
    count, depth = float(hidden.sum()), 0.0
    while hidden.any():
        depth += float(hidden.sum())
        padding = (1, 1, 1, 1)  # beyond the border nothing is observed
        hidden = -functional.max_pool2d(-functional.pad(hidden, padding, value=1.0), 3, stride=1)
    return depth / count if count else 0.0


def distance(a: float, b: float) -> float:
    return abs(math.log(a / b))


@lru_cache(maxsize=1)
def table() -> list[dict]:
    return json.loads(TABLE.read_text())["entries"]
