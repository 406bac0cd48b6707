"""The search for the parameters of one preset, which walks over a grid of (mode, w, start, start_noise) from a guess.

Of its objectives, ``fidelity`` is the PSNR, and ``score`` weighs fidelity against perception: PSNR alone picks the
smallest start, which is H+ y lightly denoised. Gradients measure edges and the Laplacian texture, of which a posterior
mean has too little.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..metrics import gmsd, gradient_energy, laplacian_energy, psnr
from ..operators import Operator
from ..presets import MODES, NOISELESS, conjugate
from ..sampler import Sampler
from ..schedules import VP, Schedule
from ..solvers import Conjugate
from ..solvers.conjugate import STABILITY_LIMIT
from ..times import uniform

__all__ = ["GRIDS", "NAMES", "REFRESHED", "Candidate", "Grid", "Task", "fidelity", "grid_of", "score", "search"]

NAMES = tuple(MODES)
DRAWING = tuple(mode for mode, options in MODES.items() if "refresh" in options)
"""The modes whose steps draw noise."""
PLAIN = NAMES.index("none")
"""The place in ``NAMES`` of the mode that is tried from the mean of every start."""
REFRESHED = NAMES.index("auto_refresh")
"""The place in ``NAMES`` of the mode that is tried from every start with the weight of a Gaussian prior."""


class Candidate(NamedTuple):
    """A point of the grid.

    Attributes:
        mode: The place of its mode in ``NAMES``.
        w, start, noise: The places of its weight, start and initial noise in a ``Grid``.
    """

    mode: int
    w: int
    start: int
    noise: int = 0


@dataclass(frozen=True)
class Grid:
    """The weights, starts, ends, modes and fractions of the initial noise that are tried for a prior.

    The starts of two grids at one place have about the same ratio of noise to signal. The first of ``noises`` is 1, and
    the only one for modes that draw noise.
    """

    weights: tuple[float | str, ...]
    starts: tuple[float, ...]
    ends: tuple[float, ...]
    modes: tuple[str, ...] = NAMES
    noises: tuple[float, ...] = (1.0,)

    def valid(self, candidate: Candidate, schedule: Schedule, steps: int) -> bool:
        """Whether a candidate is inside the grid and, in the mode "rayleigh", below the limit of stability."""
        mode, w, start, noise = candidate
        places = (w, self.weights), (start, self.starts), (noise, self.noises)
        if NAMES[mode] not in self.modes or not all(0 <= place < len(values) for place, values in places):
            return False
        if noise and NAMES[mode] in DRAWING:
            return False
        if NAMES[mode] != "rayleigh":
            return True
        weight = self.weights[w]
        if isinstance(weight, str):
            return False
        times = uniform(self.starts[start], self.ends[0], steps)
        return 2 * relaxation(schedule, weight, times) <= STABILITY_LIMIT[1]

    def coarse(self) -> list[Candidate]:
        """The candidates with every other weight and start, in all modes."""
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


NOISES = (1.0, 0.5, 0.0)
"""The fractions of the initial noise that ``ccfast.tune`` tries."""
STARTS = GRIDS["photo"].starts
"""The starts of VP, whose ratios of noise to signal are those of the starts on every schedule."""


def grid_of(schedule: Schedule) -> Grid:
    """The grid for a network of this schedule: the ratios of noise to signal of ``STARTS``, as far as it has them."""
    limits = np.sort(schedule.rho(np.array(schedule.time_range, dtype=np.float64)))
    levels = np.unique(np.clip(VP().rho(np.array(STARTS)), *limits))
    clean = [float(t) for t in schedule.time_range if float(schedule.rho(t)) == 0.0]
    bounded = schedule.unit_variance or schedule.frozen == "velocity"  # The limit of stability is known there.
    return Grid(
        weights=("bayes", 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0),
        noises=NOISES,
        starts=tuple(float(t) for t in schedule.time(levels[levels > 0])),
        ends=tuple(dict.fromkeys([float(schedule.default_end), *clean])),
        modes=tuple(mode for mode in NAMES if bounded or mode not in NOISELESS),
    )


def relaxation(schedule: Schedule, w: float, times: np.ndarray) -> float:
    """The largest exponent by which the residual decays in a step: w (B - B')/2, or w int t (1 - t) dt for a flow."""
    primitive = -0.5 * schedule.clock(times) if schedule.unit_variance else times**2 / 2 - times**3 / 3
    return float(w * np.diff(primitive).max())


@dataclass(frozen=True)
class Task:
    """Images of which the measurements are restored in a number of steps."""

    denoiser: Denoiser
    operator: Operator
    truth: Tensor
    steps: int
    noise_std: float
    objective: Callable[[Tensor, Tensor], float] | None = None

    def score(self, solver: Conjugate, start: float, end: float, start_noise: float = 1.0, every: int = 1) -> float:
        """The objective of a solver on every ``every``-th image, ``score`` where the task has none."""
        return (self.objective or score)(self.restored(solver, start, end, start_noise, every), self.truth[::every])

    def restored(self, solver: Conjugate, start: float, end: float, start_noise: float = 1.0, every: int = 1) -> Tensor:
        """Every ``every``-th image, restored from its measurement."""
        y = self.operator.forward(self.truth)
        y = y + self.noise_std * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
        sampler = Sampler(
            self.denoiser,
            self.operator,
            solver,
            self.steps,
            start,
            end,
            noise_std=self.noise_std,
            check_finite=False,
            start_noise=start_noise,
        )
        return sampler(y[::every], seed=0)


def fidelity(restored: Tensor, truth: Tensor) -> float:
    """The mean over images of the PSNR of values in [-1, 1], in dB."""
    return float(psnr(restored.clamp(-1, 1), truth).mean()) if torch.isfinite(restored).all() else -np.inf


def score(restored: Tensor, truth: Tensor) -> float:
    """The mean over images of PSNR - 50 GMSD - (|log2 g| + |log2 l|)/2.

    g and l are the gradient and the Laplacian energy of the restored image over those of the truth.
    """
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
    others: Sequence[Candidate] = (),
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Candidate, float, float]:
    """The best candidate, its end and its score.

    1. Candidates are scored on every third image. With a guess these are what is known and the neighbours of the best
       of it, then the guess, its neighbours in the grid, the other modes, all modes with the first weight, and the mode
       ``REFRESHED`` with that weight from every start. Without a guess they are a coarse grid.
    2. The neighbours of the best two so far are scored, ``rounds`` times.
    3. The best two (three after a coarse grid) are compared on all images, with every end.

    Args:
        report: is called with the number of runs that were done since the last call.
        known: candidates that an earlier search found, or that are likely to be good, which are tried first.
        others: further candidates, which are tried where there is a guess.
        stop: is asked before every run but the first of a stage, and ends the search when it answers True.
    """
    schedule, seen = task.denoiser.schedule, dict[Candidate, float]()
    if task.noise_std:
        grid = replace(grid, modes=tuple(mode for mode in grid.modes if mode not in NOISELESS))

    def run(candidate: Candidate, end: float, every: int) -> float:
        solver = conjugate(grid.weights[candidate.w], NAMES[candidate.mode])
        value = task.score(solver, grid.starts[candidate.start], end, grid.noises[candidate.noise], every)
        report(1)
        return value

    def visit(candidates: Iterable[Candidate]) -> list[Candidate]:
        for candidate in candidates:
            if seen and stop():
                break
            if candidate not in seen and grid.valid(candidate, schedule, task.steps):
                seen[candidate] = run(candidate, grid.ends[0], 3)
        return sorted(seen, key=lambda c: -seen[c])

    if guess is None:
        best = visit([*known, *grid.coarse()])
    else:
        modes = [guess, *other_modes(guess, grid, schedule, task.steps)]
        # The first weight, that of a Gaussian prior, is worth a try wherever the guess is.
        gaussian = [c._replace(w=0) for c in modes] + [Candidate(REFRESHED, 0, k) for k in range(len(grid.starts))]
        for centre in visit(known)[:1]:
            visit(around(centre))
        best = visit([*modes, *others, *around(guess), *gaussian])
    for _ in range(rounds):
        best = visit(near for centre in best[:2] for near in around(centre))
    finalists = best[: 3 if guess is None else 2]
    results: list[tuple[float, float, Candidate]] = []
    for candidate, end in itertools.product(finalists, grid.ends):
        if results and stop():
            break
        results.append((run(candidate, end, 1), end, candidate))
    value, end, candidate = max(results)
    return candidate, end, value


def around(centre: Candidate) -> list[Candidate]:
    """The candidates one place away from another in the weight, the start or the initial noise."""
    return [
        centre._replace(w=centre.w + 1),
        centre._replace(w=centre.w - 1),
        centre._replace(start=centre.start + 1),
        centre._replace(start=centre.start - 1),
        centre._replace(noise=centre.noise + 1),
        centre._replace(noise=centre.noise - 1),
    ]


def other_modes(centre: Candidate, grid: Grid, schedule: Schedule, steps: int) -> list[Candidate]:
    """Candidates of the other modes with the same start and the largest valid weight that is not above the same."""
    found = []
    for mode in range(len(NAMES)):
        weights = (centre._replace(mode=mode, w=w) for w in range(centre.w, -1, -1))
        first = next((candidate for candidate in weights if grid.valid(candidate, schedule, steps)), None)
        found += [first] if first is not None and mode != centre.mode else []
    return found
