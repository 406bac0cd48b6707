"""Time grids, and maps from schedule time to the time that a network was trained with.

A grid of n steps has n + 1 schedule times, from the most noise to the least; ``Sampler(times=...)`` takes it. The
network is evaluated at all but the last. The grids that other libraries name by their sigmas or timesteps are made here
as times of a schedule.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._scheduler import final_of_scheduler, inverts_sigmas, kind_of, schedule_of
from .schedules import VE, VP, Array, DiscreteVP, Flow, Schedule, count_of, float64_of, number_of

__all__ = [
    "FloorTimesteps",
    "default_grid",
    "exponential",
    "final_of_scheduler",
    "floor_timesteps",
    "from_scheduler",
    "karras",
    "leading",
    "linspace",
    "shifted",
    "trailing",
    "uniform",
]

HIGHEST = 4096.0
"""The sigma/mu where grids in sigma begin on a path from pure noise: diffusers takes alphabar = 2^-24 there."""

NEAR = 1e-3
"""How near, in indices, a time must be to a training timestep to be taken for it: sigmas of schedulers are rounded."""


def uniform(start: float, end: float, steps: int) -> Array:
    """``steps`` + 1 equally spaced times from ``start`` to ``end``, float64."""
    return np.linspace(start, end, steps + 1, dtype=np.float64)


def default_grid(schedule: Schedule, start: float, end: float, steps: int) -> Array:
    """What a sampler takes where it is given no times.

    Uniform in schedule time; for VE and EDM, whose time is sigma itself, ``karras`` with rho = 7. Where the grid would
    evaluate the network with less noise than it was trained for, the end apart, it is uniform down to the least noisy
    time and the last step leads from there to the end.
    """
    start, end = number_of("start", start), number_of("end", end)
    if isinstance(schedule, VE):
        return karras(schedule, steps, start=start, end=end)
    grid, limit = uniform(start, end, steps), schedule.least_noisy
    if schedule.least_noisy_rule is None or limit is None or steps < 2:
        return grid
    if schedule.std(grid[-2]) < schedule.std(limit) < schedule.std(start):
        return np.append(uniform(start, limit, steps - 1), end)
    return grid


def karras(
    schedule: Schedule, steps: int, rho: float = 7.0, *, start: float | None = None, end: float | None = None
) -> Array:
    """The grid of Karras et al. (arXiv 2206.00364, equation 5), uniform in sigma^(1/rho).

        sigma_i = (a^(1/rho) + i/(n - 1) (b^(1/rho) - a^(1/rho)))^rho,    i = 0, ..., n - 1

    sigma is the ratio sigma/mu of the path, as in k-diffusion and diffusers (``use_karras_sigmas``); for Flow it is the
    path's own sigma, 1 - t. Where the grid ends clean, as it does by default, n = ``steps``, b is the least noise that
    networks on the path are trained with (``schedule.least_noisy``: sigma_min, or the first index), and a last step
    leads from b to the end. Where the end is noisy, n = ``steps`` + 1 and b is the noise of the end.

    Args:
        schedule: the path.
        steps: the number of steps.
        rho: how much finer the grid is at little noise, > 0; 1 is uniform in sigma, infinity ``exponential``.
        start: the first time. None: that of the most noise, or where mu = 0 there the time of sigma/mu = 4096.
        end: the last time. None: the time with the least noise.

    Returns:
        (steps + 1,) schedule times, float64.

    Raises:
        TypeError, ValueError: an argument breaks its rule.
    """
    rho = number_of("rho", rho)
    if not rho > 0:
        raise ValueError(f"rho: must be a number > 0, got {rho}")

    def spaced(a: float, b: float, count: int) -> Array:
        if np.isinf(rho):
            return np.geomspace(a, b, count)
        return np.linspace(a ** (1.0 / rho), b ** (1.0 / rho), count) ** rho

    return _in_sigma(schedule, steps, start, end, spaced)


def exponential(schedule: Schedule, steps: int, *, start: float | None = None, end: float | None = None) -> Array:
    """The grid that is uniform in ln sigma (k-diffusion, and diffusers' ``use_exponential_sigmas``).

        sigma_i = a (b/a)^(i/(n - 1)),    i = 0, ..., n - 1

    with the arguments, the ends and the result of ``karras``.
    """
    return _in_sigma(schedule, steps, start, end, np.geomspace)


def _in_sigma(
    schedule: Schedule,
    steps: int,
    start: float | None,
    end: float | None,
    spaced: Callable[[float, float, int], Array],
) -> Array:
    """A grid whose sigmas are ``spaced(first, last, count)``, with the ends exactly as they are given."""
    steps, (low, high) = count_of("steps", steps), schedule.time_range
    flow = isinstance(schedule, Flow)
    noisy, clean = (high, low) if schedule.std(high) > schedule.std(low) else (low, high)
    if start is None:
        start = noisy if flow or np.isfinite(_ratio(schedule, noisy)) else float(schedule.time(HIGHEST))
    end = clean if end is None else end
    first, last = schedule.check_times([number_of("start", start), number_of("end", end)]).tolist()
    sigma = schedule.std if flow else schedule.rho
    a, b = float(sigma(first)), float(sigma(last))
    if not np.isfinite(a):
        raise ValueError(
            f"start: a grid in sigma must start at a finite sigma/mu, got {a} at t = {first:g}; start=None takes "
            f"t = {float(schedule.time(HIGHEST)):.10g}, of sigma/mu = {HIGHEST:g}"
        )
    inside, ends = steps + 1, False
    if b == 0 or (schedule.least_noisy_rule is not None and b < _noise(sigma, schedule)):
        b, inside, ends = _noise(sigma, schedule), steps, True
        if b >= a:  # The start is the least noisy time already, or less: there is nothing in between to space.
            inside = 1
    if inside == 1:
        if steps > 1:
            raise ValueError(f"steps: from t = {first:g}, the least noise of the network, one step leads to the end")
        return np.array([first, last])
    sigmas = np.asarray(spaced(a, b, inside), dtype=np.float64)
    times = 1.0 - sigmas if flow else schedule.time(sigmas)
    times = np.append(times, last) if ends else times
    times[0], times[-1] = first, last
    if ends and schedule.least_noisy is not None:
        times[-2] = schedule.least_noisy
    return schedule.check_times(times)


def _ratio(schedule: Schedule, t: float) -> float:
    with np.errstate(divide="ignore"):
        return float(np.divide(schedule.std(t), schedule.mean(t)))


def _noise(sigma: Callable[[float], Array], schedule: Schedule) -> float:
    """The sigma of the least noisy time."""
    if schedule.least_noisy is None:
        raise ValueError(f"end: {schedule!r} does not say what noise it is trained with least; give end=, not clean")
    return float(sigma(schedule.least_noisy))


def shifted(steps: int, shift: float, *, start: float = 0.0, end: float = 1.0) -> Array:
    """The grid of flow-matching models for large images (Esser et al., SD3, arXiv 2403.03206, equation 23).

        s' = shift s/(1 + (shift - 1) s),    t = 1 - s',    s uniform

    s is the sigma of the path. shift = 1 is uniform; 3 is SD3's.

    Args:
        steps: the number of steps.
        shift: > 0; above 1 more of the steps are at large noise.
        start, end: the first and the last time of the grid, after the shift; 0 is noise and 1 data.

    Returns:
        (steps + 1,) times of ``Flow``, float64.

    Raises:
        TypeError, ValueError: an argument breaks its rule.
    """
    steps = count_of("steps", steps)
    shift = number_of("shift", shift)
    if not 0 < shift < np.inf:
        raise ValueError(f"shift: must be a finite number > 0, got {shift}")
    first, last = Flow().check_times([number_of("start", start), number_of("end", end)]).tolist()
    ends = 1.0 - np.array([first, last])
    before = ends / (shift - (shift - 1.0) * ends)
    s = np.linspace(before[0], before[1], steps + 1, dtype=np.float64)
    times = 1.0 - shift * s / (1.0 + (shift - 1.0) * s)
    times[0], times[-1] = first, last
    return times


def linspace(schedule: Schedule, steps: int, count: int | None = None) -> Array:
    """Training timesteps from the last to the first, spaced equally: diffusers' ``timestep_spacing="linspace"``.

        n_i = round((N - 1) (1 - i/(steps - 1))),    i = 0, ..., steps - 1

    Args:
        schedule: ``DiscreteVP`` or ``VP``; the index n is the time n/(N - 1).
        steps: the number of steps, at most N.
        count: N, the number of training timesteps. None: that of the table; 1000 for ``VP``.

    Returns:
        (steps + 1,) schedule times, float64. The last one is the end of the schedule, ``time_range[0]``. Where that is
        the last timestep itself (``final="first"``), a step between them would change nothing, and is left out.

    Raises:
        TypeError, ValueError: an argument breaks its rule.
    """
    steps, count = _timesteps(schedule, steps, count)
    return _at_indices(schedule, np.rint(np.linspace(0, count - 1, steps))[::-1], count)


def leading(schedule: Schedule, steps: int, offset: int = 0, count: int | None = None) -> Array:
    """Every (N // steps)-th training timestep from the first on: diffusers' ``timestep_spacing="leading"``.

        n_i = (steps - 1 - i) (N // steps) + offset,    i = 0, ..., steps - 1

    The largest timestep is below N - 1, so that a run does not start from pure noise (arXiv 2305.08891 says what that
    costs).

    Args:
        offset: diffusers' ``steps_offset``, which is 1 for Stable Diffusion.
        schedule, steps, count: as for ``linspace``, and so is what is returned.
    """
    steps, count = _timesteps(schedule, steps, count)
    offset = count_of("offset", offset, 0)
    indices = (np.arange(steps, dtype=np.float64) * (count // steps))[::-1] + offset
    if indices[0] > count - 1:
        raise ValueError(f"offset: must leave the largest timestep within {count - 1}, got {offset}")
    return _at_indices(schedule, indices, count)


def trailing(schedule: Schedule, steps: int, count: int | None = None) -> Array:
    """Training timesteps from the last one on, N/steps apart: diffusers' ``timestep_spacing="trailing"``.

        n_i = round(N - i N/steps) - 1,    i = 0, ..., steps - 1

    It starts at t = 1, as models with zero terminal SNR must (arXiv 2305.08891, table 2).

    Args:
        schedule, steps, count: as for ``linspace``, and so is what is returned.
    """
    steps, count = _timesteps(schedule, steps, count)
    return _at_indices(schedule, np.rint(count - np.arange(steps) * (count / steps)) - 1, count)


def _timesteps(schedule: Schedule, steps: int, count: int | None) -> tuple[int, int]:
    """Steps and the number of training timesteps, checked."""
    if not isinstance(schedule, DiscreteVP | VP):
        raise TypeError(
            f"schedule: must be DiscreteVP or VP, whose networks are trained at timesteps, got {schedule!r}"
        )
    steps = count_of("steps", steps)
    if isinstance(schedule, DiscreteVP):
        if count is not None and count != schedule.count:
            raise ValueError(f"count: must be that of the table, {schedule.count}, or None, got {count}")
        count = schedule.count
    count = 1000 if count is None else count_of("count", count)
    if not steps <= count or count < 2:
        raise ValueError(f"steps: must be at most the number of timesteps, {count}, got {steps}")
    return steps, count


def _at_indices(schedule: Schedule, indices: Array, count: int) -> Array:
    """Times of falling indices, and the end of the schedule."""
    return _without_repeats(schedule, np.append(np.asarray(indices) / (count - 1), schedule.time_range[0]))


def _without_repeats(schedule: Schedule, times: Array) -> Array:
    """The times without those that have as much noise as the one before."""
    noise = schedule.std(times)
    kept = np.append(True, np.diff(noise) != 0)
    return schedule.check_times(times[kept])


def from_scheduler(scheduler: Any, steps: int, **options: Any) -> Array:
    """The grid of a diffusers scheduler, as times of the schedule that ``adapters.from_diffusers`` makes of it.

    A copy of the scheduler is asked by ``set_timesteps(steps, **options)``, and its ``sigmas`` and ``timesteps`` are
    read; the scheduler itself stays as it is. Nothing of diffusers is imported.

        scheduler                                      times
        flow matching (``FlowMatch...``, or            t = 1 - sigma of ``Flow``; sigma with ``invert_sigmas``
            ``use_flow_sigmas``)
        EDM (``sigma_data`` in its config)             t = sigma of ``EDM``
        VE (``ScoreSdeVeScheduler``)                   t = sigma of ``VE``, and a last step to 0
        betas and sigmas (Euler, DPM-Solver, UniPC)    the time of ``DiscreteVP`` at which sigma/mu = sigma, which is
                                                       n/(N - 1) where sigma is that of a timestep n
        betas alone (DDIM, DDPM, PNDM, LCM)            n/(N - 1), and the end of ``final_of_scheduler``

    Times that a scheduler of higher order repeats are taken once.

    Args:
        scheduler: with ``config`` and ``set_timesteps``.
        steps: what is asked of ``set_timesteps``, the network evaluations of most schedulers.
        options: more arguments of ``set_timesteps``, such as ``mu`` where flow-matching shifts depend on the image.

    Returns:
        (n + 1,) schedule times, float64; n is ``steps``, or less where a scheduler repeats or leaves out times.

    Raises:
        TypeError: the scheduler has no ``set_timesteps``.
        ValueError: it has neither sigmas nor betas, or its times do not fall, or a sigma is beyond those of its betas.
    """
    steps = count_of("steps", steps)
    if not callable(getattr(scheduler, "set_timesteps", None)) or not hasattr(scheduler, "config"):
        raise TypeError(
            "scheduler: must be a scheduler of diffusers, with config and set_timesteps, got "
            f"{type(scheduler).__name__}"
        )
    kind, schedule = kind_of(scheduler), schedule_of(scheduler)
    asked = copy.deepcopy(scheduler)
    asked.set_timesteps(steps, **options)
    sigmas = getattr(asked, "sigmas", None)
    if kind == "flow":
        values = float64_of("scheduler.sigmas", sigmas)
        noise = _clean(1.0 - values if inverts_sigmas(scheduler) else values)
        return _without_repeats(schedule, 1.0 - np.where(np.abs(noise - 1.0) < 1e-6, 1.0, noise))
    if kind == "ve":
        asked.set_sigmas(steps)
        values = float64_of("scheduler.discrete_sigmas", asked.discrete_sigmas)[::-1]
        return _without_repeats(schedule, np.append(values, 0.0))
    if kind == "edm":
        values = _clean(float64_of("scheduler.sigmas", sigmas))
        # A last sigma that repeats may differ from the one before by rounding.
        values = values[np.append(True, np.abs(np.diff(values)) > 1e-6 * values[:-1])]
        return _without_repeats(VE(float(values[values > 0].min()), float(values.max())), values)
    assert isinstance(schedule, DiscreteVP)
    last, timesteps = schedule.count - 1, float64_of("scheduler.timesteps", asked.timesteps)
    if sigmas is None:
        falling = np.unique(timesteps)[::-1] if np.all(np.diff(timesteps) <= 0) else timesteps
        return _at_indices(schedule, falling, schedule.count)
    values = float64_of("scheduler.sigmas", sigmas)
    most = float(schedule.rho(1.0))
    if values.max() > (1.0 + 1e-4) * most:
        raise ValueError(
            f"scheduler: its sigmas must be within those of its betas, up to {most:g}, got {values.max():g}; the "
            "network is not trained with more noise"
        )
    if np.isinf(most):  # A sigma of 2^12 and more stands for the infinite one of a zero terminal SNR.
        values = np.where(values >= 0.999 * HIGHEST, np.inf, values)
    index = last * schedule.time(values)
    whole = np.rint(index)
    index = np.where((np.abs(index - whole) < NEAR) & (values > 0), whole, index)
    times = np.where(values > 0, index / last, schedule.time_range[0])
    return _without_repeats(schedule, times)


def _clean(sigmas: Array) -> Array:
    """Sigmas with what rounding has left below zero set to zero."""
    return np.where(np.abs(sigmas) < 1e-7, 0.0, sigmas)


@dataclass(frozen=True)
class FloorTimesteps:
    """t -> floor((count - 1) t), what ``floor_timesteps`` makes."""

    count: int

    def __post_init__(self) -> None:
        if count_of("count", self.count) < 2:
            raise ValueError(f"count: must be at least 2, got {self.count}")

    def __call__(self, t: float) -> float:
        return float(int(t * (self.count - 1)))


def floor_timesteps(count: int) -> FloorTimesteps:
    """The map t -> floor((count - 1) t) of networks trained on ``count`` integer times (C-PiGDM's public code).

    Args:
        count: number of training times, at least 2.
    """
    return FloorTimesteps(count)
