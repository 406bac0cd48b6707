"""The sweep for photographs, which chooses every sampler's parameters and start on crops of training photographs.

It goes coordinate by coordinate, in the same way for all samplers. First it tries every start of ``STARTS`` with the
method's third candidate, then the other five candidates of ``methods`` at the best start, then the other ends of
``ENDS``. The score is that of the presets (``ccfast.tuning.search.score``), as the mean over two crops of 64 x 64
from two photographs. A hidden box has as many pixels there as in the report, and so is a larger part of the crop.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import ccfast
from ccfast.app.degradations import parse_operator
from ccfast.operators import Operator
from ccfast.solvers import Solver
from ccfast.tuning.search import score
from training.crops import training_crops

from .methods import Method

__all__ = ["ENDS", "SIZE", "STARTS", "Task", "TrainingSet", "measure", "score_of", "tune"]

STARTS = {"diffusion": (0.95, 0.5, 0.3, 0.15), "flow": (0.05, 0.5, 0.65, 0.8)}
"""The schedule times of the first state, from pure noise to H+ y with little noise, by the kind of the path."""
ENDS = {"diffusion": (0.001, 0.0), "flow": (1.0,)}
"""The schedule times of the last state, which are those that presets are chosen among."""
SIZE = 64
FIRST = 2
"""The place of the candidate that the starts are tried with."""

Task = tuple[str, float]
"""A word of ``ccfast.app.degradations`` and the standard deviation of the measurement's noise."""


def measure(task: Task, truth: Tensor, seed: int) -> tuple[Operator, Tensor]:
    """The operator of a task, and noisy measurements of the images ``truth`` (B, 3, H, W)."""
    word, noise = task
    operator = parse_operator(word, tuple(truth.shape[1:]))
    y = operator.forward(truth)
    generator = torch.Generator().manual_seed(seed)
    return operator, y + noise * torch.randn(y.shape, dtype=y.dtype, generator=generator)


class TrainingSet:
    """Crops of training photographs, cut from the middle of those that presets are chosen on."""

    def __init__(self, photos: Path) -> None:
        # The first and the last crop are of the most detailed and of the smoothest photograph.
        crops = training_crops(photos, 4)[1:3]
        edge = (crops.shape[-1] - SIZE) // 2
        self.truth = crops[..., edge : edge + SIZE, edge : edge + SIZE].contiguous()

    def problem(self, task: Task) -> tuple[Operator, Tensor]:
        word, noise = task
        if word.startswith("box:"):
            word = f"box:{2 * float(word[4:]):g}"
        return measure((word, noise), self.truth, seed=1000)


def score_of(
    training: TrainingSet, denoiser: ccfast.Denoiser, solver: Solver, task: Task, steps: int, start: float, end: float
) -> float:
    """The score of a solver from ``start`` to ``end`` on the training set."""
    operator, y = training.problem(task)
    sampler = ccfast.Sampler(denoiser, operator, solver, steps, start, end, noise_std=task[1], check_finite=False)
    return float(score(sampler(y, seed=1000), training.truth))


def tune(
    denoiser: ccfast.Denoiser, method: Method, task: Task, steps: int, training: TrainingSet
) -> tuple[int, float, float, float]:
    """The place of the best candidate, its start, its end and its score.

    Raises:
        ValueError: every trial fails.
    """
    solvers = method.candidates(steps, task[1], training.truth[0].numel())

    def value(place: int, start: float, end: float) -> float:
        return score_of(training, denoiser, solvers[place], task, steps, start, end)

    path = "flow" if denoiser.schedule.frozen == "velocity" else "diffusion"
    end, *others = ENDS[path]
    best, start = max((value(FIRST, start, end), start) for start in STARTS[path])
    best, place = max((best, FIRST), *((value(k, start, end), k) for k in range(len(solvers)) if k != FIRST))
    best, end = max([(best, end), *((value(place, start, other), other) for other in others)])
    if best == float("-inf"):
        raise ValueError(f"{method.name}: no trial of the sweep gave a finite picture for {task}, {steps} steps")
    return place, start, end, best
