"""The Sampler: plan once, run many."""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._arguments import (
    Door,
    Seed,
    check_flag,
    check_kinds,
    check_noise,
    check_start_noise,
    check_word,
    choose,
    is_integer,
    noise_of_images,
    per_image_draws,
    spoilt_images,
)
from ._clip import Clip
from ._values import FAR, NO_CONTEXT, Looks, extent
from .denoiser import Denoiser
from .engine import backends
from .engine.ambient import settled
from .engine.buffers import Buffers
from .engine.clipping import check_clip
from .engine.conditions import NOTHING, Batch, check_condition
from .engine.graphs.policy import Graphs
from .engine.graphs.store import store_of
from .engine.memory import MemoryEstimate, estimate_memory
from .engine.network import Network
from .engine.plan import Plan
from .engine.program import Callback, Program
from .engine.restoration import Draws, Request, restore, take_back
from .errors import NonFiniteError
from .latents import Decoded, LatentDenoiser
from .operators import Denoising, Operator
from .operators.proximal import proximal
from .presets import GOALS
from .schedules import Array
from .solvers import Solver

__all__ = ["Sampler"]

ESTIMATES = ("sample", "mean")
MEAN_OF = 8
"""The number of samples of the estimate "mean"."""
MOST_LEVELS = 64
"""Levels of noise whose plans a sampler keeps."""


class Given(NamedTuple):
    """The checked arguments of a call beside its measurements and its operator."""

    draws: Draws
    states: tuple[Tensor, ...] = ()
    callback: Callback | None = None
    condition: Mapping[str, Any] = NOTHING


class Sampler:
    """Restores images from measurements y = H x in a few network evaluations.

        sampler = ccfast.Sampler(denoiser, operator)
        x = sampler(y, seed=0)

    The plan, the backend and the network's casts are made here; a call only runs the loop. A sampler holds no state of
    a call and may be used from several threads at once.

    Args:
        denoiser: the pretrained network with its schedule and parametrisation.
        operator: the degradation H. Another of the same kind and shape may be given in every call.
        solver: writes the plan. None: what ``ccfast.presets.lookup`` knows to be best for the denoiser's name, the
            operator, the steps, the noise and the ``goal``, with start, end and start_noise. Where it has no entry, or
            ``times`` is given, ``ccfast.presets.GENERAL``, ``Conjugate("bayes", jacobian="auto", refresh=1.0)``, or for
            faithful results ``ccfast.presets.FAITHFUL``, ``Conjugate("bayes", jacobian="auto")`` from the mean. Neither
            has a weight to tune. Where the measurement is noisy and the operator has no singular values it is
            ``ccfast.presets.BY_ADJOINTS``, ``DPIR()``, on times of its own.
        steps: number of steps, one network evaluation each. None: 5, or as many as ``times`` has.
        start, end: schedule times of the first and last state, None for the schedule's defaults (VP 0.4 and 0.001,
            DiscreteVP 0.4 and its end, ``final``, Flow 0.6 and 1.0, VE and EDM the sigmas with the same
            noise-to-signal ratio as VP).
        times: the whole time grid (steps + 1 numbers) in place of start and end: a list, an array or a tensor,
            such as the grids of ``ccfast.times``. The default grid is uniform in schedule time, and for VE and EDM,
            whose time is sigma, ``times.karras(schedule, steps, start=start, end=end)``.
        noise_std: standard deviation of the measurement's noise, in the data range of the network ([-1, 1]). The table
            of docs/solvers.md says which solvers take it into account, which do in the initial state alone, and which
            refuse it. Every call may give a level of its own, or one for each image.
        backend: "auto" or a name of ``ccfast.engine.backends.BACKENDS``.
        device: where it runs, None for the device of the network's parameters (the CPU if it has none).
        compile_network: run the network through torch.compile.
        autocast: None, torch.bfloat16 or torch.float16: the network's autocast dtype. The state stays in the dtype of
            y whatever the network computes in.
        graph: CUDA graphs of whole runs. "auto": captured at the second call of a kind, or by ``warmup``, and used
            where that saves time; True: at the first, or an error that says why not; False: never. On the CPU there
            are none. ``stats()`` tells what became of each call, ``ccfast.engine.graphs.store`` what a graph serves.
            TF32 is as torch has it at the call. Other settings that change results (cudnn.benchmark) are those at
            capture.
        hard_consistency: end with x + H+ (y - H x), so that H x = y to rounding.
        clip: clip every x0hat of the loop: None, to (low, high), or "dynamic", which divides what lies beyond the 0.995
            quantile of |x0hat|, at least 1, by that quantile (arXiv 2205.11487); a ``DynamicThreshold`` of
            ``ccfast.engine.clipping`` has other values. "auto": the denoiser's own, which ``from_diffusers`` reads off
            the scheduler. eps follows from what is clipped (but with ``EstimateOnly`` in DDIM), and products with the
            Jacobian are those of the clipped estimate.
        check_finite: check y before and the result after the loop (the loop itself never waits for the device), and
            warn where their values can hardly be meant. A GPU is waited for once, at the end, also for y.
        nan: "raise" a ``ccfast.errors.NonFiniteError`` for images that are not finite, which names them and holds the
            others; or "return" them as they are, with a RuntimeWarning that names them.
        start_noise: fraction s of the noise that the run begins with, x = mu m + s sigma noise, where m is the mean of
            the initial state (see ``x_init`` of a call). 1: a run is a sample; 0: it begins at the mean, and its result
            does not depend on the seed. What that result is, docs/solvers.md derives: for a Gaussian prior the mean of
            all samples. Below 1 only where no step draws noise. None: that of the preset, or 1.
        goal: what a preset is for, where no solver is given. "sharp": one posterior sample, with as much detail as a
            photograph has. "faithful": the least mean-square error in so many evaluations; of a ``Denoising`` without
            start, end and times it is x0hat of one evaluation at the noise of the measurement, whatever ``steps`` is.
        estimate: "sample": a call returns one run. "mean": the mean of eight samples, ``sample(y, 8).mean(0)``, which
            costs eight runs and is nearer to the posterior mean. Its presets are those of sharp samples, whatever the
            goal, but those of a ``Denoising``. One run is enough where it begins at the mean.

    Raises:
        TypeError, ValueError: an argument breaks its rule; the message says name, rule and value.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        operator: Operator,
        solver: Solver | None = None,
        steps: int | None = None,
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
        clip: Clip | Literal["auto"] = "auto",
        nan: str = "raise",
        start_noise: float | None = None,
        goal: str = "sharp",
        estimate: str = "sample",
    ) -> None:
        self._arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        check_kinds(denoiser, operator)
        flags = {"compile_network": compile_network, "hard_consistency": hard_consistency, "check_finite": check_finite}
        for name, value in flags.items():
            check_flag(name, value)
        if nan not in ("raise", "return"):
            raise ValueError(f"nan: must be 'raise' or 'return', got {nan!r}")
        noise_std, start_noise = check_noise(noise_std), check_start_noise(start_noise)
        self._decodes = isinstance(denoiser, LatentDenoiser) and not isinstance(operator, Decoded)
        if isinstance(denoiser, LatentDenoiser):
            operator = denoiser.through(operator)
        if isinstance(operator, Decoded):
            self._check_decoded(operator, graph, hard_consistency)
            graph = False
        self.goal, self.estimate = check_word("goal", goal, GOALS), check_word("estimate", estimate, ESTIMATES)
        aim = "sharp" if estimate == "mean" and not isinstance(operator, Denoising) else goal
        chosen = choose(denoiser, operator, solver, steps, (start, end), times, noise_std, start_noise, aim)
        solver, grid, self.start_noise = chosen
        if hard_consistency and noise_std:
            raise ValueError(
                f"hard_consistency: must be False where the measurement is noisy, got True with noise_std={noise_std}"
            )
        self.denoiser, self.operator, self.solver = denoiser, operator, solver
        self.hard_consistency, self.check_finite = hard_consistency, check_finite
        self.clip, self.nan = denoiser.clip if isinstance(clip, str) and clip == "auto" else check_clip(clip), nan
        with settled(torch.device("cpu")):
            plan = self._planned(grid, noise_std)
            self._network = Network(denoiser, device, autocast, compile_network)
        self.device = self._network.device
        with settled(self.device):
            self._program = Program(plan, self._network, backends.resolve(backend, self.device), operator)
        self._levels: OrderedDict[float, Program] = OrderedDict()
        self._door = Door(operator, plan, self.device, check_finite, nan)
        self._graphs = Graphs(graph, store_of(self.device), self.device)
        self._pool: dict[tuple[Any, ...], list[Buffers]] = {}
        self._lock = threading.Lock()
        self._stats = {"calls": 0, "images": 0, "network_evaluations": 0, "vjps": 0, "seconds": 0.0}

    def _check_decoded(self, operator: Decoded, graph: bool | str, hard_consistency: bool) -> None:
        if graph is True:
            raise ValueError("graph: must be 'auto' or False for latents, whose autoencoder is not captured, got True")
        if hard_consistency and not self._decodes:
            raise ValueError(
                f"hard_consistency: must be False where the result is latents, got True with {operator!r}; give the "
                "operator on images, so that the result is decoded"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """A sampler is made again from its arguments: it can be pickled, copied and sent to other processes."""
        return _made, (type(self), self._arguments)

    def __repr__(self) -> str:
        times, noise = self.plan.times, self.plan.noise_std
        parts = [repr(self.denoiser), repr(self.operator), repr(self.solver), f"steps={len(times) - 1}"]
        parts += [f"t={times[0]:g} to {times[-1]:g}", *([f"noise_std={noise:g}"] if noise else [])]
        return f"Sampler({', '.join(parts)}, backend={self.backend!r}, device={str(self.device)!r})"

    @property
    def backend(self) -> str:
        """Name of the backend that runs the loop's operations."""
        return self._program.backend.name

    @property
    def plan(self) -> Plan:
        """The program that the loop runs: print it to see its table, ``explain()`` it to see which kernels run it."""
        return self._program.plan

    def __call__(
        self,
        y: Tensor,
        *,
        seed: Seed = None,
        x_init: Tensor | tuple[Tensor, Tensor] | None = None,
        operator: Operator | None = None,
        callback: Callback | None = None,
        noise_std: float | Sequence[float] | Tensor | None = None,
        condition: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Restore a batch of measurements.

        Args:
            y: (B, *measurement_shape), float32 (or float64, for reference runs), on the sampler's device.
            seed: an integer, or one for each image. All randomness of image b follows from its seed and, where one
                integer serves the batch, its place b, never from the rest of the batch. None: a seed from torch's
                generator; a torch.Generator: a seed from that.
            x_init: state at the first time (B, *shape), in place of mu m + start_noise sigma noise, where the mean m is
                H+ y, and where the measurement is noisy V s^2/(s^2 + noise_std^2) V^T H+ y; or the states at the first
                two times, as ``invert`` returns them, for a solver that looks back at states.
            operator: H of this call, of the same class, kind and shape as the sampler's: nothing is planned again.
            callback: called after every network evaluation as callback(step, x0hat), step from 0, x0hat the denoised
                estimate (a tensor of its own). When it returns True the run stops and the state that this step
                leads to is returned. A method ``step_end`` of the callback is called as step_end(step, state) with
                that state, which it may change in place; it may return True, too.
            noise_std: the noise of this call's measurements, one level or one for each image, in place of the
                sampler's. A level is planned when it comes for the first time, and images of one level run as a batch.
            condition: keyword arguments of the network for this call, beside the denoiser's ``network_kwargs`` and in
                place of those with the same names: labels, embeddings, pictures. A tensor, also one in a mapping, list
                or tuple, has one row, or one for each image.

        Returns:
            (B, *shape), a tensor of the caller's own, in the dtype and on the device of y.

        Raises:
            TypeError, ValueError: a bad argument, a network with a wrong output, or a non-finite y.
            ccfast.errors.NonFiniteError: images of the result are not finite; a FloatingPointError.
            RuntimeError: the call is made under a transform of torch.func, or on a tensor with a tangent; or the
                network cannot be differentiated, by its checkpointing or weights of inference mode.
        """
        looks = self._door.looks(callback is not None)
        operator = self.operator if operator is None else self._door.operator_of(operator)
        self._door.check_measurement(y, operator, looks)
        draws = per_image_draws(seed, y.shape[0])
        states = ()
        if x_init is not None:
            states = self._door.states("x_init", x_init, operator.image_shape(y), y.dtype, looks)
        condition = NOTHING if condition is None else check_condition(condition, len(y), self.device)
        given = Given(draws, states, callback, condition)
        levels = None if noise_std is None else noise_of_images(noise_std, len(y))
        several = self.estimate == "mean" and bool(self.start_noise)
        if several and callback is not None:
            raise ValueError(f"callback: sees one run, so that estimate must be 'sample', got {self.estimate!r}")
        with NO_CONTEXT if looks.at_once else looks.first():
            if levels is None:
                x = self._run(self._program, y, operator, given)
            else:
                x = self._run_levels(levels, y, operator, given)
        if several:
            for k in range(1, MEAN_OF):
                x += self._run_levels(levels, y, operator, given._replace(draws=draws.repeated(k, 1)))
            x /= MEAN_OF
        return self._settled(x, looks)

    def sample(
        self,
        y: Tensor,
        n: int,
        seed: Seed = None,
        *,
        operator: Operator | None = None,
        together: int = 1,
        condition: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """n samples for every measurement, (n, B, *shape); their mean estimates the posterior mean.

        Sample k of image b depends on b's seed and k only, so ``sample(y, 1, s)[0]`` is ``sampler(y, seed=s)`` with the
        estimate "sample". Runs that begin at the mean (``start_noise`` 0, as most faithful ones do) are all the same.

        Args:
            together: how many of the n are run as one batch; more is faster on a large GPU and takes more memory.
            condition: keyword arguments of the network, as in a call; the samples of an image share its rows.
        """
        for name, count in (("n", n), ("together", together)):
            if not is_integer(count) or count < 1:
                raise ValueError(f"{name}: must be an integer >= 1, got {count!r}")
        looks, operator = self._door.looks(), self._door.operator_of(operator)
        self._door.check_measurement(y, operator, looks)
        own, condition = per_image_draws(seed, y.shape[0]), check_condition(condition, len(y), self.device)
        drawn = []
        for first in range(0, n, together):
            count = min(together, n - first)
            repeated = y.repeat(count, *(1 for _ in y.shape[1:]))
            batch = Batch(len(repeated), count)
            given = Given(own.repeated(first, count), condition=condition)
            with looks.first():
                x = self._run(self._program, repeated, operator.repeat(count), given, batch)
            drawn.append(x.unflatten(0, (count, y.shape[0])))
        return self._settled(torch.cat(drawn).transpose(0, 1), looks).transpose(0, 1)

    def invert(self, x: Tensor, condition: Mapping[str, Any] | None = None) -> tuple[Tensor, Tensor]:
        """The states at the first two times from which the sampler comes to x.

        ``sampler(y, x_init=sampler.invert(x))`` is x to rounding, for a solver that can be run backwards (BDIA).

        Args:
            x: (B, *shape), a state at the last time, float32 or float64.
            condition: keyword arguments of the network, as in a call.

        Raises:
            ValueError: the solver has no exact inverse.
        """
        plan = replace(self.solver.inverse(self.denoiser, np.array(self.plan.times)), clip=self.clip)
        self._door.check_tensor("x", x)
        self.operator.check_image(x)
        with settled(self.device):
            program = Program(plan, self._network, self._program.backend, self.operator)
            self._network.prepare()
            return take_back(program, self.operator, x, check_condition(condition, len(x), self.device))

    def warmup(self, batch: int = 1, condition: Mapping[str, Any] | None = None) -> float:
        """Run once on a zero measurement of the given batch, compiling what compiles lazily and capturing the graph.

        A network that needs a ``condition`` gets this one. Returns the seconds. The run is not counted in ``stats``.
        """
        self._door.check_batch(batch)
        y = torch.zeros((batch, *self.operator.measurement_shape), dtype=torch.float32, device=self.device)
        with self._lock:
            before = dict(self._stats)
        started = time.perf_counter()
        given = Given(per_image_draws(0, batch), condition=check_condition(condition, batch, self.device))
        self._run(self._program, y, self.operator, given, now=True)
        if y.is_cuda:
            torch.cuda.synchronize(y.device)
        seconds = time.perf_counter() - started
        with self._lock:
            self._stats = before
        return seconds

    def stats(self) -> dict[str, Any]:
        """Totals over all calls: calls, images, network_evaluations and vjps (per batch, as the network is called) and
        seconds; the backend; and under "graph" how many calls were replays or eager, and the graphs that there are."""
        with self._lock:
            totals = dict(self._stats)
        return {**totals, "backend": self.backend, "kernels": self.plan.kernels, "graph": self._graphs.stats()}

    def memory_estimate(self, batch: int = 1, condition: Mapping[str, Any] | None = None) -> MemoryEstimate:
        """Bytes that a call needs for a batch of this size, without running it; see ``MemoryEstimate``."""
        self._door.check_batch(batch)
        condition = check_condition(condition, batch, self.device)
        with settled(self.device):
            return estimate_memory(self._program, self.operator, batch, condition)

    # ------------------------------------------------------------------------------------ one run
    def _run(
        self,
        program: Program,
        y: Tensor,
        operator: Operator,
        given: Given,
        batch: Batch | None = None,
        now: bool = False,
    ) -> Tensor:
        """Checked arguments to result; ``now``: capture even at the first call."""
        shape = operator.image_shape(y)
        if not y.shape[0]:
            return y.new_empty(self._result_shape(operator, y))
        started = time.perf_counter()
        with settled(self.device):
            self._network.prepare()
            words, batch = given.draws.words(self.device), batch or Batch(len(y))
            consistent = self.hard_consistency and not self._decodes
            request = Request(y, words, given.states, batch, consistent, given.condition)
            first = max(0, len(given.states) - 1)
            x, steps = self._graphs.run(program, operator, request, given.callback is not None, now), 0
            if x is not None:
                steps = len(program.needs) - first
            else:
                with self._borrow(program, shape, y.dtype) as buffers:
                    x, steps = restore(program, buffers, operator, request, given.callback)
            if self._decodes and isinstance(operator, Decoded):
                x = operator.decoded(x)
                if self.hard_consistency:
                    x = proximal(operator.pixels, y, x, 0.0)
        with self._lock:
            self._stats["calls"] += 1
            self._stats["images"] += y.shape[0]
            products = program.products[first + steps] - program.products[first]
            self._stats["network_evaluations"] += steps + products * program.product.evaluations
            self._stats["vjps"] += products if program.product.graph else 0
            self._stats["seconds"] += time.perf_counter() - started
        return x

    def _result_shape(self, operator: Operator, y: Tensor) -> tuple[int, ...]:
        """The shape of what a run returns: states, or the images that they are decoded to."""
        if self._decodes and isinstance(operator, Decoded):
            return len(y), *operator.image
        return operator.image_shape(y)

    def _run_levels(
        self,
        levels: list[float] | None,
        y: Tensor,
        operator: Operator,
        given: Given,
    ) -> Tensor:
        """A run for each level of noise, of the images that have it; one run at the sampler's own level for None."""
        if levels is None:
            return self._run(self._program, y, operator, given)
        places: dict[float, list[int]] = {}
        for place, level in enumerate(levels):
            places.setdefault(level, []).append(place)
        if given.callback is not None and len(places) > 1:
            raise ValueError(f"callback: sees one batch, so that noise_std must be one level, got {sorted(places)}")
        x = y.new_empty(self._result_shape(operator, y))
        for level, chosen in places.items():
            index = torch.tensor(chosen, device=y.device)
            own = given._replace(draws=given.draws.take(chosen), states=tuple(state[index] for state in given.states))
            batch = Batch(len(chosen), places=tuple(chosen), given=len(y))
            x[index] = self._run(self._program_at(level), y[index], operator.take(index), own, batch)
        return x

    def _planned(self, times: Array, noise_std: float) -> Plan:
        """The plan for a grid of times and a level of noise."""
        plan = self.solver.plan(self.denoiser, self.operator, times, noise_std)
        return replace(plan, clip=self.clip, start_noise=self.start_noise)

    def _program_at(self, level: float) -> Program:
        """The program for a level of noise, planned when it is asked for the first time."""
        if level == self.plan.noise_std:
            return self._program
        if level and self.hard_consistency:
            raise ValueError(f"noise_std: must be 0 with hard_consistency=True, got {level}")
        with self._lock:
            program = self._levels.get(level)
        if program is None:
            times = np.array(self.plan.times)
            with settled(self.device):
                program = Program(self._planned(times, level), self._network, self._program.backend, self.operator)
        with self._lock:
            self._levels[level] = program
            self._levels.move_to_end(level)
            while len(self._levels) > MOST_LEVELS:
                self._levels.popitem(last=False)
        return program

    def _settled(self, x: Tensor, looks: Looks | None = None) -> Tensor:
        """A result as the caller gets it. It is looked at with all that the call was given, in one wait."""
        if looks is None or looks.at_once:
            largest = extent(x) if self.check_finite else 0.0
        else:
            largest = looks.read(x if self.check_finite else None)
        if largest <= FAR:
            return x
        if largest < math.inf:
            self._door.values.look_at_result(x)
            return x
        images = spoilt_images(x)
        text = f"result: images {images} of {len(x)} hold values that are not finite"
        if self.nan == "return":
            warnings.warn(text, RuntimeWarning, stacklevel=3)
            return x
        raise NonFiniteError(
            f"{text}; the others are in the attribute 'result' of this error, or returned with nan='return'. Check "
            f"that network {self.denoiser!r} gives finite outputs in its dtype, and the weight of {self.solver!r}",
            images,
            x,
        )

    @contextmanager
    def _borrow(self, program: Program, shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[Buffers]:
        """Buffers of this shape that no other run uses; kept for the next call."""
        key = (id(program), shape, dtype, self._network.dtype)
        with self._lock:
            free = self._pool.setdefault(key, [])
            buffers = free.pop() if free else None
        buffers = buffers or Buffers(program, shape, dtype)
        try:
            yield buffers
        finally:
            with self._lock:
                self._pool = {key: [*self._pool.get(key, []), buffers]}


def _made(kind: type[Sampler], arguments: dict[str, Any]) -> Sampler:
    return kind(**arguments)
