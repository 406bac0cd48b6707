"""``ccfast.tune``: the solver and the times with which a network of one's own restores best."""

from __future__ import annotations

import itertools
import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .. import presets
from .._arguments import check_noise
from ..denoiser import Denoiser
from ..operators import Operator
from ..schedules import count_of
from ..solvers import Conjugate
from .search import NAMES, PLAIN, REFRESHED, Candidate, Grid, Task, fidelity, grid_of, score, search

__all__ = ["OBJECTIVES", "Tuned", "tune"]

Objective = Callable[[Tensor, Tensor], float]
OBJECTIVES: dict[str, Objective] = {"faithful": fidelity, "sharp": score}
"""The objectives that have a name."""
ROUNDS = 12
"""The number of times that the search moves on to the neighbours of its best candidates, if time allows."""
FITTING = 3
"""The place of the weight from which runs without a Jacobian set out where the measurement is noisy."""
STRONG = 4
"""The place of a large weight in the grid, from which the search sets out as well as from the weight "bayes"."""


UNDIFFERENTIATED = tuple(mode for mode, options in presets.MODES.items() if options.get("jacobian") == "none")
"""The modes for networks that have no gradients."""


class Tuned(NamedTuple):
    """What ``tune`` found.

    Attributes:
        solver, start, end: The arguments of ``ccfast.Sampler``.
        score: The objective on all images.
        default: The objective of what ``ccfast.Sampler`` takes where it is given no solver.
        tried: The number of candidates that were run.
        start_noise: The fraction of the initial noise, the argument of ``ccfast.Sampler``.
    """

    solver: Conjugate
    start: float
    end: float
    score: float
    default: float
    tried: int
    start_noise: float = 1.0


def tune(
    denoiser: Denoiser,
    operator: Operator,
    images: Tensor,
    steps: int = 5,
    objective: str | Objective = "faithful",
    seconds: float = 300.0,
    noise_std: float = 0.0,
    save: str | Path | None = None,
) -> Tuned:
    """Find the solver and the times with which a network restores images best in a number of steps.

        found = ccfast.tune(denoiser, operator, images, seconds=120)
        sampler = ccfast.Sampler(
            denoiser, operator, found.solver, start=found.start, end=found.end, start_noise=found.start_noise
        )

    The measurements of the images are restored by ``Conjugate`` with other guidance weights, Jacobians, starts and
    fractions of the initial noise. The search begins at the default, and at runs from the mean without a Jacobian, and
    goes on to the neighbours of what is best; it tries candidates on a third of the images and decides on all of them.
    What it returns is never worse on these images than the default.

    Args:
        denoiser: The network.
        operator: The degradation.
        images: True images (B, *operator.shape), which the result must not be judged on. A dozen small crops will do.
        steps: The number of steps.
        objective: "faithful" is the PSNR; "sharp" also rewards edges and texture (``ccfast.tuning.search.score``). A
            function of the restored and the true images (B, ...) that returns a number is maximised, too.
        seconds: The time after which the search ends. At least the default is measured.
        noise_std: The standard deviation of the measurement's noise.
        save: A JSON file that gets the result as an entry, for ``ccfast.presets.load``, where it is better than the
            default. The denoiser needs a name. The entry is for samplers whose goal is the objective, and for those of
            the other goal where that has none; the entry of a function is for both.

    Raises:
        ValueError: An argument breaks its rule, or the default cannot restore the images.
    """
    count_of("steps", steps)
    noise_std = check_noise(noise_std)
    if images.ndim != len(operator.shape) + 1 or images.shape[1:] != torch.Size(operator.shape) or not len(images):
        raise ValueError(f"images: must be of shape (B, {str(operator.shape)[1:-1]}), got {tuple(images.shape)}")
    if isinstance(objective, str) and objective not in OBJECTIVES:
        raise ValueError(f"objective: must be 'faithful', 'sharp' or a function, got {objective!r}")
    if not (isinstance(seconds, int | float) and seconds > 0):
        raise ValueError(f"seconds: must be > 0, got {seconds!r}")
    if save is not None and not denoiser.name:
        raise ValueError("save: needs a denoiser with a name, by which the entry is found again, got None")
    measure = OBJECTIVES[objective] if isinstance(objective, str) else objective
    task, grid, begun = Task(denoiser, operator, images, steps, noise_std, measure), grid_of(denoiser.schedule), now()
    goal = objective if isinstance(objective, str) else "sharp"
    if objective == "sharp":  # Runs from less noise are no samples.
        grid = replace(grid, noises=(1.0,))
    default = presets.lookup(denoiser.name, operator, steps, noise_std, goal)
    default = default or presets.general(denoiser.schedule, operator, goal)
    near = min(range(len(grid.starts)), key=lambda k: abs(grid.starts[k] - default.start))
    weight = FITTING if noise_std else len(grid.weights) - 1  # Without noise the measurement is kept.
    known = [Candidate(PLAIN, weight, start, len(grid.noises) - 1) for start in range(len(grid.starts))]
    strong = [Candidate(mode, STRONG, near) for mode in range(len(NAMES))]
    own_place = place_of(default, grid, near)
    known = known if own_place is None else [own_place, *known]
    runs = [1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Candidates that are unstable score badly.
        try:
            own = task.score(*default)
        except ValueError as error:
            if "must be differentiable" not in str(error):
                raise
            own, grid = -math.inf, replace(grid, modes=UNDIFFERENTIATED)
        guess, stop = Candidate(REFRESHED, 0, near), lambda: now() - begun > seconds
        best, end, value = search(task, grid, guess, ROUNDS, runs.append, known, strong, stop)
    w, mode, start = grid.weights[best.w], NAMES[best.mode], grid.starts[best.start]
    start_noise = grid.noises[best.noise]
    if not max(own, value) > -math.inf:
        raise ValueError(f"images: no candidate restores them to finite values with {denoiser!r}")
    if not value > own:
        return Tuned(default.solver, default.start, default.end, own, own, sum(runs), default.start_noise)
    if save is not None:
        entry = {
            "prior": denoiser.name,
            "task": repr(operator),
            "noise_std": noise_std,
            "steps": steps,
            **({"goal": objective} if isinstance(objective, str) else {}),
            **presets.described(operator),
            "w": w,
            "mode": mode,
            "start": start,
            "end": end,
            "start_noise": start_noise,
            "score": round(value, 3),
        }
        add_entry(Path(save), entry)
    return Tuned(presets.conjugate(w, mode), start, end, value, own, sum(runs), start_noise)


now = time.monotonic


def add_entry(path: Path, entry: dict) -> None:
    """Write an entry into a file of presets, in place of one with the same name, operator, noise, steps and goal."""
    key = ("prior", "task", "noise_std", "steps", "goal")
    entries = json.loads(path.read_text())["entries"] if path.exists() else []
    entries = [old for old in entries if any(old.get(name) != entry.get(name) for name in key)]
    presets.write_entries(path, [*entries, entry])


def place_of(preset: presets.Preset, grid: Grid, start: int) -> Candidate | None:
    """The candidate with the solver and the initial noise of a preset, from a start of the grid, if there is one."""
    for mode, (w, weight) in itertools.product(range(len(NAMES)), enumerate(grid.weights)):
        if presets.conjugate(weight, NAMES[mode]) == preset.solver and preset.start_noise in grid.noises:
            return Candidate(mode, w, start, grid.noises.index(preset.start_noise))
    return None
