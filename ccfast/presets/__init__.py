"""Presets: the parameters and the times of a solver for a prior, an operator and a number of steps.

A preset is an entry of ``presets.json`` beside this file. ``python -m training.preset_sweep`` finds the entries by
restoring *training* photographs; no held-out picture takes part.
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

__all__ = ["GENERAL", "LIMITED", "MODES", "NOISELESS", "Preset", "conjugate", "load", "lookup", "strength"]

ENTRIES_FILE = Path(__file__).parent / "presets.json"

MODES: dict[str, dict[str, str | float]] = {
    "auto": {"jacobian": "auto"},
    "one_projection": {"jacobian": "one_projection"},
    "none": {"jacobian": "none"},
    "rayleigh": {"centred": "rayleigh"},
    "auto_refresh": {"jacobian": "auto", "refresh": 1.0},
    "one_projection_refresh": {"jacobian": "one_projection", "refresh": 1.0},
    "none_refresh": {"jacobian": "none", "refresh": 1.0},
}
"""The options of ``Conjugate`` that the ``mode`` of an entry stands for."""
NOISELESS = ("rayleigh",)
"""The modes that refuse noise in the measurement."""
LIMITED = ("rayleigh",)
"""The modes that are unstable on long steps."""


GENERAL = Conjugate("bayes", jacobian="auto", refresh=1.0)
"""The solver for networks and operators without an entry: it has no weight that would have to fit them."""


class Preset(NamedTuple):
    """The solver and the times of the first and last state that a Sampler takes where the user names none."""

    solver: Conjugate
    start: float
    end: float


def lookup(name: str | None, operator: Operator, steps: int, noise_std: float = 0.0) -> Preset | None:
    """The preset nearest to an operator and a number of steps, None for a prior or an operator without entries.

    Entries of the operator's class are preferred to others of its kind. Among them, entries with noise are preferred
    where the measurement has noise, and entries without where it has none. An entry serves its own number of steps and
    more of them: fewer would be longer ones, on which a sampler may be unstable. Where every entry has more steps than
    are asked for, those with the fewest are taken, unless their mode has a limit of stability. The nearest of the rest
    in noise, then in ``strength``, then in the number of steps is taken; every distance is that of a ratio from 1.
    """
    entries = [e for e in read_entries() if e["prior"] == name and not (noise_std and e["mode"] in NOISELESS)]
    entries = [entry for entry in entries if entry["steps"] <= steps or entry["mode"] not in LIMITED]
    near = [entry for entry in entries if entry["operator"] == type(operator).__name__]
    near = near or [entry for entry in entries if entry["kind"] == operator.kind]
    near = [entry for entry in near if (entry["noise_std"] > 0) == (noise_std > 0)] or near
    if not near:
        return None
    fewest = min(entry["steps"] for entry in near)
    near = [entry for entry in near if entry["steps"] <= max(steps, fewest)]
    own = strength(operator)

    def far(entry: dict) -> tuple[float, float, float]:
        noise = distance(entry["noise_std"], noise_std) if noise_std and entry["noise_std"] else 0.0
        return noise, distance(entry["strength"], own), distance(entry["steps"], steps)

    best = min(near, key=far)
    return Preset(conjugate(best["w"], best["mode"]), best["start"], best["end"])


def conjugate(w: float | str, mode: str) -> Conjugate:
    """The solver with the guidance weight ``w`` and a mode of ``MODES``."""
    return Conjugate(w, **MODES[mode])  # pyright: ignore[reportArgumentType]


def strength(operator: Operator) -> float:
    """How much an operator hides: a number >= 1 by which operators of one class are compared.

    A mask has 1 + the mean distance, in pixels, of a hidden pixel from an observed one (about 2 where every second
    pixel is hidden at random, about 1 + n/6 for a box of side n). Any other operator has the number of pixels over the
    number of singular values that are not zero.
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
        padding = (1, 1, 1, 1)  # Nothing is observed beyond the border.
        hidden = -functional.max_pool2d(-functional.pad(hidden, padding, value=1.0), 3, stride=1)
    return depth / count if count else 0.0


def distance(a: float, b: float) -> float:
    """|ln(a/b)| of two positive numbers: how far their ratio is from 1."""
    return abs(math.log(a / b))


@lru_cache(maxsize=1)
def shipped_entries() -> list[dict]:
    return json.loads(ENTRIES_FILE.read_text())["entries"]


def read_entries() -> list[dict]:
    """The entries of the files that were loaded, the last one first, and those of the package."""
    return [*_loaded, *shipped_entries()]


def load(path: str | Path, prior: str | None = None) -> int:
    """Add the entries of a file that ``ccfast.tune`` wrote to those that are looked up; returns their number.

    They are found by the name of the denoiser. Of two entries that are equally near, the one loaded last is taken.

    Args:
        path: The file.
        prior: The name that every entry must have; None: any name.

    Raises:
        ValueError: The file does not hold entries of presets, or one for another denoiser.
    """
    try:
        entries = json.loads(Path(path).read_text())["entries"]
        for entry in entries:
            conjugate(entry["w"], entry["mode"])
            if wrong := [name for name, kinds in FIELDS.items() if not isinstance(entry[name], kinds)]:
                raise ValueError(f"{wrong[0]} is {entry[wrong[0]]!r}")
            if prior is not None and entry["prior"] != prior:
                raise ValueError(f"an entry is for the denoiser {entry['prior']!r}, not for {prior!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path: must be a file of presets that ccfast.tune wrote, got {path} ({error})") from error
    _loaded[:] = [*entries, *(entry for entry in _loaded if entry not in entries)]
    return len(entries)


_loaded: list[dict] = []
FIELDS = {
    "prior": str,
    "operator": str,
    "kind": str,
    "noise_std": int | float,
    "strength": int | float,
    "start": int | float,
    "end": int | float,
    "steps": int,
}
"""The types of the parts of an entry beside w and mode."""
