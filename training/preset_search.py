"""The search for the parameters of one preset: a grid over (mode, w, start), walked from a good guess.

Its objective is the score below, which weighs fidelity against perception: PSNR alone would pick the smallest start,
H+ y lightly denoised. Gradients measure edges, the Laplacian texture, of which a posterior mean has too little.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ccfast.denoiser import Denoiser
from ccfast.metrics import gmsd, gradient_energy, laplacian_energy, psnr
from ccfast.operators import Operator
from ccfast.presets import MODES, NOISELESS, conjugate
from ccfast.sampler import Sampler
from ccfast.schedules import Schedule
from ccfast.solvers import Conjugate
from ccfast.solvers.conjugate import STABILITY_LIMIT
from ccfast.times import uniform

__all__ = ["GRIDS", "NAMES", "REFRESHED", "Candidate", "Grid", "Task", "score", "search"]

NAMES = tuple(MODES)
REFRESHED = NAMES.index("auto_refresh")
"""Place of the mode that is tried with the weight of a Gaussian prior from every start."""


class Candidate(NamedTuple):
    """Places in the grid."""

    mode: int
    w: int
    start: int


@dataclass(frozen=True)
class Grid:
    """What is tried for a schedule; the starts of two grids at one place have about the same noise-to-signal ratio."""

    weights: tuple[float | str, ...]
    starts: tuple[float, ...]
    ends: tuple[float, ...]
    modes: tuple[str, ...] = NAMES

    def valid(self, candidate: Candidate, schedule: Schedule, steps: int) -> bool:
        """Inside the grid; the mode that is exact whatever the step only within the limit of its stability."""
        mode, w, start = candidate
        if NAMES[mode] not in self.modes or not (0 <= w < len(self.weights) and 0 <= start < len(self.starts)):
            return False
        if NAMES[mode] != "rayleigh":
            return True
        weight = self.weights[w]
        if isinstance(weight, str):
            return False
        times = uniform(self.starts[start], self.ends[0], steps)
        return 2 * relaxation(schedule, weight, times) <= STABILITY_LIMIT[1]

    def coarse(self) -> list[Candidate]:
        """Every other weight and start, all modes."""
        places = itertools.product(range(len(NAMES)), range(0, len(self.weights), 2), range(0, len(self.starts), 2))
        return [Candidate(*place) for place in places]


GRIDS = {
    "photo": Grid(
        weights=("bayes", 10.0, 20.0, 40.0, 80.0, 160.0, 320.0),
        starts=(0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8),
        ends=(0.001, 0.0),
    ),
    "photo-flow": Grid(
        weights=("bayes", 20.0, 40.0, 80.0, 160.0, 320.0, 640.0),
        starts=(0.75, 0.66, 0.58, 0.45, 0.34, 0.24, 0.11, 0.04),
        ends=(1.0,),
    ),
}


def relaxation(schedule: Schedule, w: float, times: np.ndarray) -> float:
    """Largest decay exponent of the residual in a step: w (B - B')/2, for a flow w int t (1 - t) dt."""
    primitive = -0.5 * schedule.clock(times) if schedule.unit_variance else times**2 / 2 - times**3 / 3
    return float(w * np.diff(primitive).max())


@dataclass(frozen=True)
class Task:
    """One measurement to be restored in a number of steps."""

    denoiser: Denoiser
    operator: Operator
    truth: Tensor
    steps: int
    noise_std: float

    def score(self, solver: Conjugate, start: float, end: float, every: int = 1) -> float:
        """The score on every ``every``-th image; -inf where the result is not finite."""
        y = self.operator.forward(self.truth)
        y += self.noise_std * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
        sampler = Sampler(
            self.denoiser, self.operator, solver, self.steps, start, end, noise_std=self.noise_std, check_finite=False
        )
        return score(sampler(y[::every], seed=0), self.truth[::every])


def score(restored: Tensor, truth: Tensor) -> float:
    """Mean over images of PSNR - 50 GMSD - (|log2 g| + |log2 l|)/2, g and l the ratios of the restored image's gradient
    and Laplacian energy to those of the truth."""
    if not torch.isfinite(restored).all():
        return -np.inf
    restored = restored.clamp(-1, 1)
    detail = sum((energy(restored) / energy(truth)).log2().abs() for energy in (gradient_energy, laplacian_energy))
    return float((psnr(restored, truth) - 50.0 * gmsd(restored, truth) - 0.5 * detail).mean())


def search(
    task: Task,
    grid: Grid,
    guess: Candidate | None,
    rounds: int,
    report: Callable[[int], object],
    known: Sequence[Candidate] = (),
) -> tuple[Candidate, float, float]:
    """The best candidate, its end and its score.

    On every third image the guess, what lies one place from it, the other modes, all modes with the first weight, and
    one of these from every start are tried (without a guess a coarse grid), and ``rounds`` times what lies one place
    from the best two so far; the best two (three after a coarse grid) are then compared on all images, with every end.

    Args:
        report: called with the number of runs done.
        known: tried as well, what an earlier search found.
    """
    schedule, seen = task.denoiser.schedule, dict[Candidate, float]()
    if task.noise_std:
        grid = replace(grid, modes=tuple(mode for mode in grid.modes if mode not in NOISELESS))

    def run(candidate: Candidate, end: float, every: int) -> float:
        solver = conjugate(grid.weights[candidate.w], NAMES[candidate.mode])
        value = task.score(solver, grid.starts[candidate.start], end, every)
        report(1)
        return value

    def visit(candidates: Iterable[Candidate]) -> list[Candidate]:
        for candidate in candidates:
            if candidate not in seen and grid.valid(candidate, schedule, task.steps):
                seen[candidate] = run(candidate, grid.ends[0], 3)
        return sorted(seen, key=lambda c: -seen[c])

    if guess is None:
        best = visit([*known, *grid.coarse()])
    else:
        modes = [guess, *other_modes(guess, grid, schedule, task.steps)]
        # the weight of a Gaussian prior, the first, is near wherever the guess is
        gaussian = [c._replace(w=0) for c in modes] + [Candidate(REFRESHED, 0, k) for k in range(len(grid.starts))]
        best = visit([*known, *modes, *around(guess), *gaussian])
    for _ in range(rounds):
        best = visit(near for centre in best[:2] for near in around(centre))
    finalists = best[: 3 if guess is None else 2]
    value, end, candidate = max(
        (run(candidate, end, 1), end, candidate) for candidate, end in itertools.product(finalists, grid.ends)
    )
    return candidate, end, value


def around(centre: Candidate) -> list[Candidate]:
    """One place away in the weight or in the start."""
    return [
        centre._replace(w=centre.w + 1),
        centre._replace(w=centre.w - 1),
        centre._replace(start=centre.start + 1),
        centre._replace(start=centre.start - 1),
    ]


def other_modes(centre: Candidate, grid: Grid, schedule: Schedule, steps: int) -> list[Candidate]:
    """The other modes at the same start, with the largest weight up to the same one that is valid."""
    found = []
    for mode in range(len(NAMES)):
        weights = (centre._replace(mode=mode, w=w) for w in range(centre.w, -1, -1))
        first = next((candidate for candidate in weights if grid.valid(candidate, schedule, steps)), None)
        found += [first] if first is not None and mode != centre.mode else []
    return found
