"""The rules for what a sampler is given, when it is made and in its calls. Every error says name, rule and value."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from torch import Tensor

from . import presets
from ._values import Looks, Values, extent
from .denoiser import Denoiser
from .engine.ambient import check_transforms
from .engine.network import same_device
from .engine.plan import Plan
from .engine.restoration import Draws
from .latents import Decoded
from .operators import Denoising, Operator
from .schedules import Array, Schedule, count_of
from .solvers import LATINO, Solver
from .solvers.solver import check_fraction
from .solvers.tweedie import Tweedie
from .times import default_grid

__all__ = [
    "Choice",
    "Door",
    "Seed",
    "check_flag",
    "check_kinds",
    "check_noise",
    "check_start_noise",
    "check_word",
    "choose",
    "is_integer",
    "noise_of_images",
    "per_image_draws",
    "spoilt_images",
]

DEFAULT_STEPS = 5

FLOATS = (torch.float32, torch.float64)

Seed = int | Sequence[int] | Tensor | np.ndarray | torch.Generator | None


def check_kinds(denoiser: Denoiser, operator: Operator) -> None:
    """Raise TypeError unless these are a Denoiser and an Operator."""
    for name, value, kind in (("denoiser", denoiser, Denoiser), ("operator", operator, Operator)):
        if not isinstance(value, kind):
            cure = "; ccfast.Generator(denoiser) samples without a measurement" * (name == "operator" and value is None)
            raise TypeError(f"{name}: must be a ccfast {kind.__name__}, got {type(value).__name__}{cure}")


def check_flag(name: str, value: object, *words: str) -> None:
    """Raise TypeError unless a value is a bool, or one of some words."""
    if not isinstance(value, bool) and not (isinstance(value, str) and value in words):
        raise TypeError(f"{name}: must be {', '.join(['True', 'False', *map(repr, words)])}, got {value!r}")


def check_word(name: str, value: object, words: tuple[str, ...]) -> str:
    """Return one of some words, and raise ValueError for anything else."""
    if not (isinstance(value, str) and value in words):
        raise ValueError(f"{name}: must be {' or '.join(map(repr, words))}, got {value!r}")
    return value


def check_noise(noise_std: float) -> float:
    """A finite number >= 0, or an error; with a warning where it can only be meant for pixels in [0, 255]."""
    if isinstance(noise_std, Tensor | np.ndarray) and noise_std.ndim == 0:
        noise_std = noise_std.item()
    if isinstance(noise_std, bool) or not isinstance(noise_std, int | float | np.number):
        raise TypeError(
            f"noise_std: must be a number (the noise of each image is an argument of the call), got {noise_std!r}"
        )
    if not (math.isfinite(noise_std) and noise_std >= 0):
        raise ValueError(f"noise_std: must be a finite number >= 0, got {noise_std}")
    if noise_std > 2:
        warnings.warn(
            f"noise_std: is in the data range of the network, [-1, 1], so that {noise_std:g} leaves nothing of an "
            f"image; for pixels in [0, 255] give {noise_std:g}/127.5",
            UserWarning,
            stacklevel=4,
        )
    return float(noise_std)


def check_start_noise(start_noise: float | None) -> float | None:
    """None or a number in [0, 1]; an error otherwise."""
    if start_noise is None:
        return None
    if isinstance(start_noise, bool) or not isinstance(start_noise, int | float | np.number):
        raise TypeError(f"start_noise: must be a number in [0, 1] or None, got {start_noise!r}")
    return check_fraction("start_noise", float(start_noise))


class Choice(NamedTuple):
    """The solver, the checked time grid and the fraction of the initial noise of a sampler."""

    solver: Solver
    times: Array
    start_noise: float


def choose(
    denoiser: Denoiser,
    operator: Operator,
    solver: Solver | None,
    steps: int | None,
    span: tuple[float | None, float | None],
    times: Sequence[float] | Array | None,
    noise_std: float,
    start_noise: float | None,
    goal: str,
) -> Choice:
    """What a sampler runs, from a preset where no solver is given; ``span`` is start and end."""
    start, end = span
    if times is not None:
        count = len(denoiser.schedule.check_times(times)) - 1
        given = {"steps": steps if steps != count else None, "start": start, "end": end}
        if said := [f"{name}={value}" for name, value in given.items() if value is not None]:
            raise ValueError(f"times: is the whole grid, here of {count} steps, and excludes {', '.join(said)}")
        steps = count
    steps = count_of("steps", DEFAULT_STEPS if steps is None else steps)
    if solver is None and isinstance(operator, Decoded):
        solver = LATINO()
    free = solver is None and not start_noise and all(given is None for given in (times, start, end))
    if free and goal == "faithful" and isinstance(operator, Denoising):
        return Choice(Tweedie(), time_grid(denoiser.schedule, 1, None, None, None), 0.0)
    if solver is None and noise_std and operator.kind == "krylov":
        solver = presets.BY_ADJOINTS
        if all(given is None for given in (times, start, end)):
            times = presets.by_adjoints_times(denoiser.schedule, steps, noise_std)
    if solver is None:
        preset = presets.lookup(denoiser.name, operator, steps, noise_std, goal) if times is None else None
        preset = preset or presets.general(denoiser.schedule, operator, goal)
        solver = preset.solver
        start, end = preset.start if start is None else start, preset.end if end is None else end
        start_noise = preset.start_noise if start_noise is None else start_noise
    if not isinstance(solver, Solver):
        raise TypeError(f"solver: must be one of ccfast.solvers, got {solver!r}")
    grid = time_grid(denoiser.schedule, steps, start, end, times)
    return Choice(solver, grid, 1.0 if start_noise is None else start_noise)


def time_grid(
    schedule: Schedule,
    steps: int,
    start: float | None,
    end: float | None,
    given: Sequence[float] | Array | None,
) -> Array:
    """The checked grid of a sampler."""
    if given is not None:
        return schedule.check_times(given)
    start = schedule.default_start if start is None else start
    end = schedule.default_end if end is None else end
    return schedule.check_times(default_grid(schedule, start, end, steps))


def per_image_draws(seed: Seed, batch: int) -> Draws:
    """A 64-bit seed for every image and its place among those that share the seed."""
    if seed is None or isinstance(seed, torch.Generator):
        device = "cpu" if seed is None else seed.device
        seed = int(torch.randint(2**63 - 1, (), dtype=torch.int64, generator=seed, device=device))
    if isinstance(seed, Tensor | np.ndarray):
        if seed.ndim > 1 or not is_integral(seed.dtype):
            raise TypeError(f"seed: an array must hold integers, one or one for each image, got {seed!r}")
        seed = seed.tolist()
    if type(seed) is int or is_integer(seed):
        seeds, places = [int(seed)] * batch, list(range(batch))
    elif isinstance(seed, Sequence) and not isinstance(seed, str | bytes) and all(map(is_integer, seed)):
        seeds, places = [int(value) for value in seed], [0] * batch
        if len(seeds) != batch:
            raise ValueError(f"seed: must be an int or one for each of the {batch} images, got {len(seeds)}")
    else:
        raise TypeError(f"seed: must be an integer, one for each image, a torch.Generator or None, got {seed!r}")
    for value in seeds:
        if not 0 <= value < 1 << 64:
            raise ValueError(f"seed: must be in [0, 2^64), got {value}")
    return Draws(seeds, places, [0] * batch)


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is an integer of whatever type, a bool not being one."""
    if isinstance(value, Tensor):
        return value.ndim == 0 and is_integral(value.dtype)
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_integral(dtype: torch.dtype | np.dtype) -> bool:
    """Whether a dtype is one of integers."""
    if isinstance(dtype, np.dtype):
        return dtype.kind in "iu"
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def noise_of_images(noise_std: float | Sequence[float] | Tensor | np.ndarray, batch: int) -> list[float]:
    """The level of every image, from a number or one for each."""
    values: Any = noise_std.tolist() if isinstance(noise_std, Tensor | np.ndarray) else noise_std
    levels = list(values) if isinstance(values, list | tuple) else [values] * batch
    if len(levels) != batch:
        raise ValueError(f"noise_std: must be a number or one for each of the {batch} images, got {len(levels)}")
    return [check_noise(level) for level in levels]


def spoilt_images(x: Tensor) -> list[int]:
    """The places in a batch of the images that hold a value that is not finite."""
    return (~torch.isfinite(x).flatten(1).all(dim=1)).nonzero().flatten().tolist()


class Door:
    """What the calls of one sampler may be given.

    Args:
        operator: the sampler's own.
        plan: what it runs.
        device: where it runs.
        check_finite: whether tensors are looked through for values that are not finite, or in another range.
        nan: "return" lets such values through.
    """

    def __init__(self, operator: Operator, plan: Plan, device: torch.device, check_finite: bool, nan: str) -> None:
        self.operator, self.plan, self.device, self.check_finite = operator, plan, device, check_finite
        self.refuses, self.values = check_finite and nan == "raise", Values()
        self._at_once = Looks()
        self._two_states = plan.depth == {"x": 1}

    def operator_of(self, given: Operator | None) -> Operator:
        """The operator of a call: the sampler's, or another of its kind and shapes."""
        own: Operator = self.operator
        if given is None:
            return own
        if isinstance(own, Decoded) and not isinstance(given, Decoded):
            return Decoded(self._like(own.pixels, given), own.autoencoder)
        return self._like(own, given)

    @staticmethod
    def _like(own: Operator, given: Operator) -> Operator:
        if not isinstance(given, Operator):
            raise TypeError(f"operator: must be a ccfast Operator, got {type(given).__name__}")
        if (given.kind, given.shape, given.measurement_shape) != (own.kind, own.shape, own.measurement_shape):
            raise ValueError(f"operator: must have the kind and shapes of the sampler's {own!r}, got {given!r}")
        if type(given) is not type(own):
            raise TypeError(
                f"operator: must be of the class of the sampler's, {type(own).__name__}, got {type(given).__name__}"
            )
        return given

    def check_batch(self, batch: int) -> None:
        """Raise unless the sampler's own operator takes so many images."""
        own = self.operator
        if batch < 1:
            raise ValueError(f"batch: must be at least 1, got {batch}")
        if own.batch is not None and own.batch != batch:
            raise ValueError(f"batch: the operator holds parts for {own.batch} images, got {batch}")
        if own.any_channels:
            raise ValueError(
                f"shape: the number of channels is open in {own!r}; give Inpainting(mask, shape=(C, H, W))"
            )

    def looks(self, callback: bool = False) -> Looks:
        """The looks of one call, which are taken before it where a callback sees its steps, and on the CPU."""
        return self._at_once if callback or self.device.type != "cuda" else Looks(at_once=False)

    def check_measurement(self, y: Tensor, operator: Operator, looks: Looks) -> None:
        """Raise unless y is a measurement of the operator; that it is finite, when the looks are taken."""
        self._check_kind("y", y, None)
        operator.check_measurement(y)
        seen = operator.pixels if isinstance(operator, Decoded) else operator

        def judge(largest: float) -> None:
            if not largest < math.inf:
                self._refuse("y", y)
            if largest < math.inf and y.numel():
                self.values.look_at_measurement(y, largest, seen, self.plan.noise_std)

        if self.check_finite and looks.at_once:
            judge(extent(y))
        elif self.check_finite:
            looks.take(y, judge)

    def states(
        self,
        name: str,
        x: Tensor | tuple[Tensor, Tensor],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        looks: Looks | None = None,
    ) -> tuple[Tensor, ...]:
        """One state or two as a tuple of checked tensors."""
        states = x if isinstance(x, tuple) else (x,)
        if len(states) == 2 and not self._two_states:
            raise ValueError(f"{name}: {self.plan.solver} starts from one state, got two")
        if len(states) > 2:
            raise ValueError(f"{name}: must be a state or a pair of states, got {len(states)} of them")
        for state in states:
            self.check_tensor(name, state, looks, dtype)
            if tuple(state.shape) != shape:
                raise ValueError(f"{name}: must have shape {shape}, got {tuple(state.shape)}")
        return states

    def check_tensor(
        self, name: str, value: Tensor, looks: Looks | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """Raise unless it is a tensor without gradient, of this dtype, on the sampler's device, and finite.

        That it is finite is found when the looks are taken, which is at once without any.
        """
        self._check_kind(name, value, dtype)
        if self.refuses:
            (looks or Looks()).take(value, lambda largest: largest < math.inf or self._refuse(name, value))

    def _check_kind(self, name: str, value: Tensor, dtype: torch.dtype | None) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: must be a torch.Tensor, got {type(value).__name__}")
        allowed = FLOATS if dtype is None else (dtype,)
        if value.dtype not in allowed:
            raise TypeError(f"{name}: must have dtype {' or '.join(map(str, allowed))}, got {value.dtype}")
        if value.device != self.device and not same_device(value.device, self.device):
            raise ValueError(f"{name}: must be on the sampler's device {self.device}, got {value.device}")
        check_transforms(name, value)
        if value.requires_grad:
            raise ValueError(f"{name}: requires grad, but a sampler cannot be differentiated; pass {name}.detach()")

    def _refuse(self, name: str, value: Tensor) -> None:
        if self.refuses:
            bad = int((~torch.isfinite(value)).sum())
            raise ValueError(
                f"{name}: must be finite, got {bad} NaN or infinite values of {value.numel()}, in images "
                f"{spoilt_images(value)}; Sampler(nan='return') lets the others through"
            )
