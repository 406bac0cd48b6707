"""``ccfast.tune``: the solver and the times with which a network of one's own restores best."""

from __future__ import annotations

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
from .search import NAMES, REFRESHED, Candidate, Task, fidelity, grid_of, score, search

__all__ = ["OBJECTIVES", "Tuned", "tune"]

Objective = Callable[[Tensor, Tensor], float]
OBJECTIVES: dict[str, Objective] = {"faithful": fidelity, "sharp": score}
"""The objectives that have a name."""
ROUNDS = 12
"""The number of times that the search moves on to the neighbours of its best candidates, if time allows."""
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
    """

    solver: Conjugate
    start: float
    end: float
    score: float
    default: float
    tried: int


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
        sampler = ccfast.Sampler(denoiser, operator, found.solver, start=found.start, end=found.end)

    The measurements of the images are restored by ``Conjugate`` with other guidance weights, Jacobians and starts. The
    search begins at the default and goes on to the neighbours of what is best; it tries candidates on a third of the
    images and decides on all of them. What it returns is never worse on these images than the default.

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
            default. The denoiser needs a name.

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
    preset = presets.lookup(denoiser.name, operator, steps, noise_std)
    times = denoiser.schedule.default_start, denoiser.schedule.default_end
    default = preset or presets.Preset(presets.GENERAL, *times)
    near = min(range(len(grid.starts)), key=lambda k: abs(grid.starts[k] - default.start))
    strong = [Candidate(mode, STRONG, near) for mode in range(len(NAMES))]
    runs = [1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Candidates that are unstable score badly.
        try:
            own = task.score(*default)
        except ValueError as error:
            if "must be differentiable" not in str(error):
                raise
            own, grid = -math.inf, replace(grid, modes=UNDIFFERENTIATED)
        best, end, value = search(
            task, grid, Candidate(REFRESHED, 0, near), ROUNDS, runs.append, strong, lambda: now() - begun > seconds
        )
    w, mode, start = grid.weights[best.w], NAMES[best.mode], grid.starts[best.start]
    if not max(own, value) > -math.inf:
        raise ValueError(f"images: no candidate restores them to finite values with {denoiser!r}")
    if not value > own:
        return Tuned(*default, own, own, sum(runs))
    if save is not None:
        entry = {
            "prior": denoiser.name,
            "task": repr(operator),
            "noise_std": noise_std,
            "steps": steps,
            "operator": type(operator).__name__,
            "kind": operator.kind,
            "strength": round(presets.strength(operator), 3),
            "w": w,
            "mode": mode,
            "start": start,
            "end": end,
            "score": round(value, 3),
        }
        add_entry(Path(save), entry)
    return Tuned(presets.conjugate(w, mode), start, end, value, own, sum(runs))


now = time.monotonic


def add_entry(path: Path, entry: dict) -> None:
    """Write an entry into a file of presets, in place of one with the same name, operator, noise and steps."""
    key = ("prior", "task", "noise_std", "steps")
    entries = json.loads(path.read_text())["entries"] if path.exists() else []
    entries = [old for old in entries if any(old[name] != entry[name] for name in key)]
    path.write_text(json.dumps({"entries": [*entries, entry]}, indent=1) + "\n")
