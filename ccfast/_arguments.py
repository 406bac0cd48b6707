"""The rules for what a sampler is given, when it is made and in its calls. Every error says name, rule and value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from . import presets
from .denoiser import Denoiser
from .engine.network import same_device
from .engine.plan import Plan
from .engine.restoration import Draws
from .operators import Operator
from .schedules import Array, Schedule
from .solvers import Conjugate, Solver
from .times import default_grid

__all__ = ["Door", "check_kinds", "check_steps", "is_finite", "per_image_draws", "solver_and_times"]


def check_kinds(denoiser: Denoiser, operator: Operator) -> None:
    """Raise TypeError unless these are a Denoiser and an Operator."""
    for name, value, kind in (("denoiser", denoiser, Denoiser), ("operator", operator, Operator)):
        if not isinstance(value, kind):
            raise TypeError(f"{name}: must be a ccfast {kind.__name__}, got {type(value).__name__}")


def check_steps(steps: int) -> int:
    """A positive integer, or ValueError."""
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise ValueError(f"steps: must be an integer >= 1, got {steps!r}")
    return int(steps)


def solver_and_times(
    denoiser: Denoiser,
    operator: Operator,
    solver: Solver | None,
    steps: int,
    span: tuple[float | None, float | None],
    times: Sequence[float] | Array | None,
    noise_std: float,
) -> tuple[Solver, Array]:
    """The solver, a preset's where none is given, and the checked time grid from ``span``, start and end, or times."""
    steps, (start, end) = check_steps(steps), span
    if solver is None:
        solver = Conjugate()
        preset = presets.lookup(denoiser.name, operator, steps, noise_std) if times is None else None
        if preset is not None:
            solver = preset.solver
            start, end = preset.start if start is None else start, preset.end if end is None else end
    if not isinstance(solver, Solver):
        raise TypeError(f"solver: must be one of ccfast.solvers, got {solver!r}")
    return solver, time_grid(denoiser.schedule, steps, start, end, times)


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


def per_image_draws(seed: int | Sequence[int] | None, batch: int) -> Draws:
    """A 64-bit seed for every image and its place among those that share the seed."""
    if seed is None:
        seed = int(torch.randint(2**63 - 1, (), dtype=torch.int64))
    if isinstance(seed, int | np.integer):
        seeds, places = [int(seed)] * batch, list(range(batch))
    else:
        seeds, places = [int(value) for value in seed], [0] * batch
        if len(seeds) != batch:
            raise ValueError(f"seed: must be an int or one for each of the {batch} images, got {len(seeds)}")
    for value in seeds:
        if not 0 <= value < 1 << 64:
            raise ValueError(f"seed: must be in [0, 2^64), got {value}")
    return Draws(seeds, places, [0] * batch)


def is_finite(x: Tensor) -> bool:
    """Whether all values are finite, without a temporary of the size of x (one wait for the device)."""
    return x.numel() == 0 or bool(torch.isfinite(torch.stack(torch.aminmax(x))).all())


class Door:
    """What the calls of one sampler may be given.

    Args:
        operator: the sampler's own.
        plan: what it runs.
        device: where it runs.
        check_finite: whether tensors are looked through for values that are not finite.
    """

    def __init__(self, operator: Operator, plan: Plan, device: torch.device, check_finite: bool) -> None:
        self.operator, self.plan, self.device, self.check_finite = operator, plan, device, check_finite
        self._two_states = plan.depth == {"x": 1}

    def operator_of(self, given: Operator | None) -> Operator:
        """The operator of a call: the sampler's, or another of its kind and shapes."""
        own = self.operator
        if given is None:
            return own
        if not isinstance(given, Operator):
            raise TypeError(f"operator: must be a ccfast Operator, got {type(given).__name__}")
        if (given.kind, given.shape, given.measurement_shape) != (own.kind, own.shape, own.measurement_shape):
            raise ValueError(f"operator: must have the kind and shapes of the sampler's {own!r}, got {given!r}")
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

    def check_measurement(self, y: Tensor, operator: Operator) -> None:
        """Raise unless y is a measurement of the operator."""
        self.check_tensor("y", y)
        operator.check_measurement(y)

    def states(
        self, name: str, x: Tensor | tuple[Tensor, Tensor], shape: tuple[int, ...], dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        """One state or two as a tuple of checked tensors."""
        states = x if isinstance(x, tuple) else (x,)
        if len(states) == 2 and not self._two_states:
            raise ValueError(f"{name}: {self.plan.solver} starts from one state, got two")
        if len(states) > 2:
            raise ValueError(f"{name}: must be a state or a pair of states, got {len(states)} of them")
        for state in states:
            self.check_tensor(name, state, dtype)
            if tuple(state.shape) != shape:
                raise ValueError(f"{name}: must have shape {shape}, got {tuple(state.shape)}")
        return states

    def check_tensor(self, name: str, value: Tensor, dtype: torch.dtype | None = None) -> None:
        """Raise unless it is a finite tensor without gradient, of this dtype, on the sampler's device."""
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: must be a torch.Tensor, got {type(value).__name__}")
        allowed = (torch.float32, torch.float64) if dtype is None else (dtype,)
        if value.dtype not in allowed:
            raise TypeError(f"{name}: must have dtype {' or '.join(map(str, allowed))}, got {value.dtype}")
        if not same_device(value.device, self.device):
            raise ValueError(f"{name}: must be on the sampler's device {self.device}, got {value.device}")
        if value.requires_grad:
            raise ValueError(f"{name}: requires grad, but a sampler cannot be differentiated; pass {name}.detach()")
        if self.check_finite and not is_finite(value):
            bad = int((~torch.isfinite(value)).sum())
            raise ValueError(f"{name}: must be finite, got {bad} NaN or infinite values of {value.numel()}")
