"""Presets: the solver, its times and its initial noise for a prior, an operator, a number of steps and a goal.

A preset is an entry of a file beside this one: of ``presets.json``, which ``python -m training.preset_sweep`` makes
for the goal "sharp", or of ``tuned.json``, which ``python -m training.preset_goals`` makes with ``ccfast.tune`` for the
goal "faithful", and of thin connected holes for both goals. All are found by restoring *training* photographs; no
held-out picture takes part.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..operators import Inpainting, Operator
from ..schedules import Array, Schedule
from ..solvers import DPIR, Conjugate
from .masks import are_connected, hole_distance, holes, mean_hole_depth

__all__ = [
    "BY_ADJOINTS",
    "FAITHFUL",
    "GENERAL",
    "GOALS",
    "LIMITED",
    "MODES",
    "NOISELESS",
    "Preset",
    "by_adjoints_times",
    "conjugate",
    "described",
    "general",
    "load",
    "lookup",
    "strength",
    "write_entries",
]

ENTRIES_FILE = Path(__file__).parent / "presets.json"
TUNED_FILE = Path(__file__).parent / "tuned.json"

GOALS = ("sharp", "faithful")
"""What a preset is chosen for: one posterior sample with the detail of a photograph, or the least mean-square error."""

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
FAITHFUL = Conjugate("bayes", jacobian="auto")
"""The same for the goal "faithful", from the mean of the initial state: the posterior mean of a unit Gaussian."""

Entry = dict[str, Any]

BY_ADJOINTS = DPIR()
"""The solver for measurements with noise of an operator that is known by H and H^T alone, without singular values."""


FIRST_RHO = 49 / 127.5
"""The noise-to-signal ratio at which the evaluations of ``BY_ADJOINTS`` begin, as in its paper."""


def by_adjoints_times(schedule: Schedule, steps: int, noise_std: float) -> Array:
    """The times of ``BY_ADJOINTS``, whose evaluations go from rho = 0.38 down to ``noise_std``, evenly in ln rho.

    The last evaluation sees what the last data step has left, which is about the noise of the measurement. The first
    ratio is at least twice that noise, and the last one at least that of the default end.
    """
    end = schedule.default_end
    lowest = 2.0 * float(schedule.rho(np.array([end]))[0])
    last = max(min(noise_std, FIRST_RHO / 2.0), lowest)
    ratios = np.geomspace(max(FIRST_RHO, noise_std, 2.0 * last), last, steps)
    return np.append(schedule.time(ratios), end)


class Preset(NamedTuple):
    """The solver, the times of the first and last state and the ``start_noise`` where the user of a Sampler names none.

    ``start_noise`` is the fraction of the initial noise.
    """

    solver: Conjugate
    start: float
    end: float
    start_noise: float = 1.0


def lookup(
    name: str | None, operator: Operator, steps: int, noise_std: float = 0.0, goal: str = "sharp"
) -> Preset | None:
    """The preset nearest to an operator and a number of steps, None for a prior or an operator without entries.

    Entries of the goal, or without one, are preferred; then those of the operator's class to others of its kind. Among
    them, entries with noise are preferred where the measurement has noise, and entries without where it has none. An
    entry serves its own number of steps and more of them: fewer would be longer ones, on which a sampler may be
    unstable. Where every entry has more steps than are asked for, those with the fewest are taken, unless their mode
    has a limit of stability. The nearest of the rest in noise, then in ``strength``, then in the number of steps is
    taken; every distance is that of a ratio from 1. Masks are compared by their ``holes``, of which wide ones count
    for more.

    Where the noise or the strength lies between two entries that differ in it alone, w and start are interpolated, if
    both have one mode and one ``start_noise``. If not, the entry for the more difficult of the two is taken where that
    is not much further.

    Args:
        name: The name of the denoiser.
        operator: The degradation.
        steps: The number of steps.
        noise_std: The standard deviation of the measurement's noise.
        goal: "sharp" or "faithful".
    """
    entries = [e for e in read_entries() if e["prior"] == name and not (noise_std and e["mode"] in NOISELESS)]
    entries = [entry for entry in entries if entry["steps"] <= steps or entry["mode"] not in LIMITED]
    near = preferred(entries, lambda entry: entry.get("goal") in (goal, None))
    own_class = [entry for entry in near if entry["operator"] == type(operator).__name__]
    near = own_class or [entry for entry in near if entry["kind"] == operator.kind]
    near = preferred(near, lambda entry: (entry["noise_std"] > 0) == (noise_std > 0))
    if not near:
        return None
    fewest = min(entry["steps"] for entry in near)
    near = [entry for entry in near if entry["steps"] <= max(steps, fewest)]
    own = {"noise_std": noise_std, "strength": strength(operator), "holes": holes_of(operator)}

    def far(entry: Entry) -> tuple[float, float, float]:
        return how_far("noise_std", entry, own), how_far("strength", entry, own), distance(entry["steps"], steps)

    best = min(near, key=far)
    for name in ("noise_std", "strength"):
        best = between(name, best, near, own)
    return Preset(conjugate(best["w"], best["mode"]), best["start"], best["end"], best.get("start_noise", 1.0))


def preferred(entries: list[Entry], wanted: Any) -> list[Entry]:
    """The entries that are wanted, or all where none is."""
    return [entry for entry in entries if wanted(entry)] or entries


def how_far(name: str, entry: Entry, own: Entry) -> float:
    """The distance of an entry in its noise or strength; that of masks is the distance of their holes."""
    if name == "strength" and own["holes"] is not None and "holes" in entry:
        return hole_distance(entry["holes"], own["holes"])
    return distance(entry[name], own[name]) if entry[name] and own[name] else 0.0


SAME = 0.02
"""The distance in noise or strength below which two tasks are the same."""
BETWEEN = 1.6
"""How many times as far as the nearest entry the more difficult one may be that is taken in its place."""


def between(name: str, best: Entry, entries: Iterable[Entry], own: Entry) -> Entry:
    """The best entry, or what lies between it and the next entry on the other side of the own noise or strength."""
    if not (best[name] and own[name]) or (name == "strength" and own["holes"] is not None):
        return best
    if distance(best[name], own[name]) < SAME:
        return best
    alike = [
        e for e in entries if all(e[k] == best[k] for k in ("operator", "steps", "noise_std", "strength") if k != name)
    ]
    beyond = [e for e in alike if (best[name] - own[name]) * (e[name] - own[name]) < 0]
    if not beyond:
        return best
    other = min(beyond, key=lambda entry: distance(entry[name], own[name]))
    u = distance(best[name], own[name]) / distance(best[name], other[name])
    same = all(best.get(key, 1.0) == other.get(key, 1.0) for key in ("mode", "end", "start_noise"))
    weights = best["w"], other["w"]
    if same and (weights[0] == weights[1] or not any(isinstance(w, str) for w in weights)):
        w = weights[0] if weights[0] == weights[1] else weights[0] ** (1.0 - u) * weights[1] ** u
        return {**best, "w": w, "start": (1.0 - u) * best["start"] + u * other["start"]}
    near_enough = distance(other[name], own[name]) < BETWEEN * distance(best[name], own[name])
    return other if other[name] > best[name] and near_enough else best


DEEP = 8.4
"""The ratio of noise to signal from which a mask with connected holes is restored where no entry says otherwise."""


def general(schedule: Schedule, operator: Operator, goal: str = "sharp") -> Preset:
    """What is taken without an entry: the times of the schedule, or a start near pure noise for connected holes."""
    start, found = schedule.default_start, holes_of(operator)
    if found and are_connected(found):
        limits = np.sort(schedule.rho(np.array(schedule.time_range, dtype=np.float64)))
        start = float(schedule.time(np.clip(DEEP, *limits)))
    if goal == "faithful":
        return Preset(FAITHFUL, start, schedule.default_end, 0.0)
    return Preset(GENERAL, start, schedule.default_end)


def conjugate(w: float | str, mode: str) -> Conjugate:
    """The solver with the guidance weight ``w`` and a mode of ``MODES``."""
    return Conjugate(w, **MODES[mode])  # pyright: ignore[reportArgumentType]


def described(operator: Operator) -> Entry:
    """What an entry says about its operator."""
    known = {
        "operator": type(operator).__name__,
        "kind": operator.kind,
        "strength": round(strength(operator), 3),
    }
    found = holes_of(operator)
    return known if found is None else {**known, "holes": found}


def holes_of(operator: Operator) -> list[float] | None:
    """The ``holes`` of a mask; None for any other operator."""
    return holes(operator.singular_values) if isinstance(operator, Inpainting) else None


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


def distance(a: float, b: float) -> float:
    """|ln(a/b)| of two positive numbers: how far their ratio is from 1."""
    return abs(math.log(a / b))


@lru_cache(maxsize=1)
def shipped_entries() -> list[Entry]:
    swept, tuned = (json.loads(path.read_text())["entries"] for path in (ENTRIES_FILE, TUNED_FILE))
    return [*({**entry, "goal": "sharp"} for entry in swept), *tuned]


def read_entries() -> list[Entry]:
    """The entries of the files that were loaded, the last one first, and those of the package."""
    return [*_loaded, *shipped_entries()]


def write_entries(path: Path, entries: Sequence[Entry]) -> None:
    """Write a file of presets, one entry a line."""
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in entries)
    path.write_text(f'{{\n "entries": [\n{lines}\n ]\n}}\n')


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
            if wrong := [name for name, rule in OPTIONAL.items() if name in entry and not rule(entry[name])]:
                raise ValueError(f"{wrong[0]} is {entry[wrong[0]]!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path: must be a file of presets that ccfast.tune wrote, got {path} ({error})") from error
    _loaded[:] = [*entries, *(entry for entry in _loaded if entry not in entries)]
    return len(entries)


_loaded: list[Entry] = []
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
OPTIONAL = {
    "goal": lambda value: value in GOALS,
    "start_noise": lambda value: isinstance(value, int | float) and 0 <= value <= 1,
    "holes": lambda value: isinstance(value, list) and all(isinstance(v, int | float) and v >= 0 for v in value),
}
"""The rules of the parts that an entry may have."""
