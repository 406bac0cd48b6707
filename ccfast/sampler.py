"""The Sampler: plan once, run many."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import backends, presets
from .denoiser import Denoiser
from .engine import Buffers, Callback, Program
from .kernels.reference import Ops, seed_words
from .memory import MemoryEstimate, estimate_memory
from .network import Network, same_device
from .operators import Operator
from .plan import Plan
from .schedules import Array, Schedule
from .solvers import Conjugate, Solver
from .times import uniform

__all__ = ["Sampler"]


class Sampler:
    """Restores images from measurements y = H x in a few network evaluations.

        sampler = ccfast.Sampler(denoiser, operator)
        x = sampler(y, seed=0)

    The plan, the backend and the network's casts are made here; a call only runs the loop. A sampler holds no state of
    a call and may be used from several threads at once.

    Args:
        denoiser: the pretrained network with its schedule and parametrisation.
        operator: the degradation H. Another of the same kind and shape may be given in every call.
        solver: writes the plan. None: what ``ccfast.presets.lookup(denoiser.name, operator, steps)`` found best, start
            included; ``Conjugate()`` where it has no entry or ``times`` is given.
        steps: number of steps, one network evaluation each.
        start, end: schedule times of the first and last state, None for the schedule's defaults (VP 0.4 and 0.001,
            Flow 0.6 and 1.0, VE and EDM the sigmas with the same noise-to-signal ratio as VP).
        times: the whole time grid (steps + 1 numbers) in place of steps, start and end. The default grid is uniform
            in schedule time.
        noise_std: standard deviation of the measurement's noise in the data range [-1, 1]; only 0 so far.
        backend: "auto" or a name of ``ccfast.backends.BACKENDS``.
        device: where it runs, None for the device of the network's parameters (the CPU if it has none).
        compile_network: run the network through torch.compile.
        autocast: None, torch.bfloat16 or torch.float16: the network's autocast dtype. The state stays in the dtype of
            y whatever the network computes in.
        graph: CUDA graph capture: "auto" or False run eagerly; True is refused, since nothing is captured yet.
        hard_consistency: end with x + H+ (y - H x), so that H x = y to rounding.
        check_finite: check y before and the result after the loop (the loop itself never waits for the device).

    Raises:
        TypeError, ValueError: an argument breaks its rule; the message says name, rule and value.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        operator: Operator,
        solver: Solver | None = None,
        steps: int = 5,
        start: float | None = None,
        end: float | None = None,
        times: Sequence[float] | Array | None = None,
        noise_std: float = 0.0,
        backend: str = "auto",
        device: torch.device | str | None = None,
        compile_network: bool = False,
        autocast: torch.dtype | None = None,
        graph: bool | str = "auto",
        hard_consistency: bool = False,
        check_finite: bool = True,
    ) -> None:
        for name, value, kind in (("denoiser", denoiser, Denoiser), ("operator", operator, Operator)):
            if not isinstance(value, kind):
                raise TypeError(f"{name}: must be a ccfast {kind.__name__}, got {type(value).__name__}")
        steps = check_steps(steps)
        if solver is None:
            preset = presets.lookup(denoiser.name, operator, steps) if times is None else None
            solver, start = (
                (preset.solver, preset.start if start is None else start) if preset else (Conjugate(), start)
            )
        if not isinstance(solver, Solver):
            raise TypeError(f"solver: must be one of ccfast.solvers, got {solver!r}")
        if noise_std != 0:
            raise ValueError(
                f"noise_std: {solver!r} handles noiseless measurements only, so it must be 0, got {noise_std}"
            )
        if graph not in ("auto", False):
            raise ValueError(f"graph: must be 'auto' or False (CUDA graphs are not captured yet), got {graph!r}")
        self.denoiser, self.operator, self.solver = denoiser, operator, solver
        self.hard_consistency, self.check_finite = hard_consistency, check_finite
        grid = time_grid(denoiser.schedule, steps, start, end, times)
        self._plan = solver.plan(denoiser, operator, grid)
        self._network = Network(denoiser, device, autocast, compile_network)
        self.device = self._network.device
        self.backend, module = backends.resolve(backend, self.device)
        self._program = Program(self._plan, self._network, module)
        self._pool: dict[tuple[Any, ...], list[Buffers]] = {}
        self._lock = threading.Lock()
        self._stats = {"calls": 0, "images": 0, "network_evaluations": 0, "vjps": 0, "seconds": 0.0}

    @property
    def plan(self) -> Plan:
        """The table of coefficients that the loop runs; print it to see it."""
        return self._plan

    def __call__(
        self,
        y: Tensor,
        *,
        seed: int | Sequence[int] | None = None,
        x_init: Tensor | None = None,
        operator: Operator | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """Restore a batch of measurements.

        Args:
            y: (B, *measurement_shape), float32 (or float64, for reference runs), on the sampler's device.
            seed: an int, or one for each image. All randomness of image b follows from its seed and, where one int
                serves the batch, its place b, never from the rest of the batch. None: a seed from torch's generator.
            x_init: state at the first time (B, *shape), in place of mu H+ y + sigma noise.
            operator: H of this call, of the same class, kind and shape as the sampler's: nothing is planned again.
            callback: called after every network evaluation as callback(step, x0hat), step from 0, x0hat the denoised
                estimate (a tensor of its own). When it returns True the run stops and the state that this step
                leads to is returned.

        Returns:
            (B, *shape), a tensor of the caller's own, in the dtype and on the device of y.

        Raises:
            TypeError, ValueError: a bad argument, a network with a wrong output, or a non-finite y.
            FloatingPointError: the result is not finite.
            RuntimeError: torch.inference_mode is on and the solver needs a derivative of the network.
        """
        operator = self._check_operator(operator)
        self._check_measurement(y, operator)
        seeds, samples = per_sample_seeds(seed, y.shape[0])
        return self._run(y, operator, seeds, samples, [0] * y.shape[0], x_init, callback)

    def sample(
        self,
        y: Tensor,
        n: int,
        seed: int | Sequence[int] | None = None,
        *,
        operator: Operator | None = None,
        together: int = 1,
    ) -> Tensor:
        """n samples for every measurement, (n, B, *shape); their mean estimates the posterior mean.

        Sample k of image b depends on b's seed and k only, so ``sample(y, 1, s)[0]`` is ``sampler(y, seed=s)``.

        Args:
            together: how many of the n are run as one batch; more is faster on a large GPU and takes more memory.
        """
        if n < 1 or together < 1:
            raise ValueError(f"n, together: must be at least 1, got {n} and {together}")
        operator = self._check_operator(operator)
        self._check_measurement(y, operator)
        seeds, samples = per_sample_seeds(seed, y.shape[0])
        drawn = []
        for first in range(0, n, together):
            count = min(together, n - first)
            repeated = y.repeat(count, *(1 for _ in y.shape[1:]))
            draws = [first + k for k in range(count) for _ in seeds]
            x = self._run(repeated, operator.repeat(count), seeds * count, samples * count, draws, None, None)
            drawn.append(x.unflatten(0, (count, y.shape[0])))
        return torch.cat(drawn)

    def warmup(self, batch: int = 1) -> float:
        """Run once on a zero measurement of the given batch (compiling what compiles lazily); returns the seconds.

        The run is not counted in ``stats``.
        """
        self._check_batch(batch)
        y = torch.zeros((batch, *self.operator.measurement_shape), dtype=torch.float32, device=self.device)
        before = self.stats()
        started = time.perf_counter()
        self(y, seed=0)
        seconds = time.perf_counter() - started
        with self._lock:
            self._stats = before
        return seconds

    def stats(self) -> dict[str, Any]:
        """Totals over all calls: calls, images, network_evaluations and vjps (per batch, as the network is called) and
        seconds; and the backend."""
        with self._lock:
            return {**self._stats, "backend": self.backend}

    def memory_estimate(self, batch: int = 1) -> MemoryEstimate:
        """Bytes that a call needs for a batch of this size, without running it; see ``MemoryEstimate``."""
        self._check_batch(batch)
        return estimate_memory(self._program, self.operator, batch)

    # ------------------------------------------------------------------------------------ one run
    def _run(
        self,
        y: Tensor,
        operator: Operator,
        seeds: list[int],
        samples: list[int],
        draws: list[int],
        x_init: Tensor | None,
        callback: Callback | None,
    ) -> Tensor:
        shape = operator.image_shape(y)
        if x_init is not None:
            self._check_tensor("x_init", x_init, y.dtype)
            if tuple(x_init.shape) != shape:
                raise ValueError(f"x_init: must have shape {shape}, got {tuple(x_init.shape)}")
        if any(self._program.needs_vjp) and torch.is_inference_mode_enabled():
            raise RuntimeError(
                f"torch.inference_mode: {self.solver!r} differentiates the network, which inference mode forbids; "
                "leave it, or use a solver that takes no derivative, such as Conjugate(jacobian='none')"
            )
        if not y.shape[0]:
            return y.new_empty(shape)
        started = time.perf_counter()
        with torch.no_grad(), self._network.frozen(), self._borrow(shape, y.dtype) as buffers:
            self._network.prepare()
            ops = self._program.backend.bind(operator)
            draw_noise = self._noise(ops, seeds, samples, draws)
            ybar = operator.pinv(y)
            if x_init is None:
                draw_noise(buffers.state, 0)
                buffers.state.mul_(float(self._plan.sigma[0])).add_(ybar, alpha=float(self._plan.mu[0]))
            else:
                buffers.state.copy_(x_init)
            steps = self._program.run(buffers, ops, ybar, draw_noise, callback)
            x = buffers.state.clone()
            if self.hard_consistency:
                x += ybar - operator.project(x)
        if self.check_finite and not bool(torch.isfinite(x).all()):
            raise FloatingPointError(
                f"result: {self.solver!r} with network {self.denoiser!r} gave values that are not finite; check that "
                "the network's output is finite in its dtype, and the guidance weight"
            )
        with self._lock:
            self._stats["calls"] += 1
            self._stats["images"] += y.shape[0]
            self._stats["network_evaluations"] += steps
            self._stats["vjps"] += sum(self._program.needs_vjp[:steps])
            self._stats["seconds"] += time.perf_counter() - started
        return x

    def _noise(
        self, ops: Ops, seeds: list[int], samples: list[int], draws: list[int]
    ) -> Callable[[Tensor, int], Tensor]:
        keys = seed_words(seeds, self.device)
        places = torch.tensor(samples, dtype=torch.int64, device=self.device)
        which = torch.tensor(draws, dtype=torch.int64, device=self.device)
        return lambda out, step: ops.normal(out, keys, places, which, step)

    @contextmanager
    def _borrow(self, shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[Buffers]:
        """Buffers of this shape that no other run uses; kept for the next call (inference tensors apart)."""
        key = (shape, dtype, torch.is_inference_mode_enabled())
        with self._lock:
            free = self._pool.setdefault(key, [])
            buffers = free.pop() if free else None
        buffers = buffers or Buffers(self._program, shape, dtype)
        try:
            yield buffers
        finally:
            with self._lock:
                self._pool = {key: [*self._pool.get(key, []), buffers]}

    # ------------------------------------------------------------------------------------ checks at the door
    def _check_operator(self, operator: Operator | None) -> Operator:
        own = self.operator
        if operator is None:
            return own
        if not isinstance(operator, Operator):
            raise TypeError(f"operator: must be a ccfast Operator, got {type(operator).__name__}")
        if (operator.kind, operator.shape, operator.measurement_shape) != (own.kind, own.shape, own.measurement_shape):
            raise ValueError(f"operator: must have the kind and shapes of the sampler's {own!r}, got {operator!r}")
        return operator

    def _check_batch(self, batch: int) -> None:
        own = self.operator
        if batch < 1:
            raise ValueError(f"batch: must be at least 1, got {batch}")
        if own.batch is not None and own.batch != batch:
            raise ValueError(f"batch: the operator holds parts for {own.batch} images, got {batch}")
        if own.any_channels:
            raise ValueError(
                f"shape: the number of channels is open in {own!r}; give Inpainting(mask, shape=(C, H, W))"
            )

    def _check_measurement(self, y: Tensor, operator: Operator) -> None:
        self._check_tensor("y", y, None)
        operator.check_measurement(y)

    def _check_tensor(self, name: str, value: Tensor, dtype: torch.dtype | None) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: must be a torch.Tensor, got {type(value).__name__}")
        allowed = (torch.float32, torch.float64) if dtype is None else (dtype,)
        if value.dtype not in allowed:
            raise TypeError(f"{name}: must have dtype {' or '.join(map(str, allowed))}, got {value.dtype}")
        if not same_device(value.device, self.device):
            raise ValueError(f"{name}: must be on the sampler's device {self.device}, got {value.device}")
        if value.requires_grad:
            raise ValueError(f"{name}: requires grad, but a sampler cannot be differentiated; pass {name}.detach()")
        if self.check_finite and not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).sum())
            raise ValueError(f"{name}: must be finite, got {bad} NaN or infinite values of {value.numel()}")


def check_steps(steps: int) -> int:
    """A positive integer, or ValueError."""
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise ValueError(f"steps: must be an integer >= 1, got {steps!r}")
    return int(steps)


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
    return schedule.check_times(uniform(start, end, steps))


def per_sample_seeds(seed: int | Sequence[int] | None, batch: int) -> tuple[list[int], list[int]]:
    """A 64-bit seed for every image and its place among those that share the seed."""
    if seed is None:
        seed = int(torch.randint(2**63 - 1, (), dtype=torch.int64))
    if isinstance(seed, int | np.integer):
        seeds, samples = [int(seed)] * batch, list(range(batch))
    else:
        seeds, samples = [int(value) for value in seed], [0] * batch
        if len(seeds) != batch:
            raise ValueError(f"seed: must be an int or one for each of the {batch} images, got {len(seeds)}")
    for value in seeds:
        if not 0 <= value < 1 << 64:
            raise ValueError(f"seed: must be in [0, 2^64), got {value}")
    return seeds, samples
