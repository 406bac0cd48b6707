"""The Generator: images from noise alone, by the engine, the kernels and the graphs of the Sampler."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ._arguments import Seed, is_integer, per_image_draws
from ._clip import Clip
from .denoiser import Denoiser
from .engine.ambient import check_transforms, settled
from .engine.conditions import Batch, check_condition, spread
from .engine.memory import MemoryEstimate
from .engine.plan import Plan
from .engine.program import Callback
from .latents import LatentDenoiser
from .operators import Denoising
from .operators.operator import check_shape
from .sampler import Given, Sampler
from .schedules import Array, Schedule, count_of
from .solvers import Solver, UniPC
from .times import HIGHEST, default_grid

__all__ = ["Generator"]

DEFAULT_STEPS = 20

MOST_SHAPES = 16
"""Shapes of images whose samplers a generator keeps."""

SMALLEST = (1, 1, 1)
"""The shape with which a generator checks its arguments, before it knows another one."""


class Generator:
    """Generates images with a pretrained network: a sampler without a measurement.

        generator = ccfast.Generator(denoiser, steps=20)
        images = generator(4, (3, 256, 256), seed=0)

    The state begins as sigma times noise at the first time, and the solver takes it to the last one. A plan, buffers
    and graphs are made for every shape of images, as those of a ``Sampler``; a generator holds no state of a call and
    may be used from several threads at once. Guidance is that of the denoiser, ``denoiser.guided(scale, ...)``.

    Args:
        denoiser: the pretrained network with its schedule and parametrisation.
        solver: one that does not look at a measurement (docs/solvers.md): DDIM, DDPM, DPMSolverPP, UniPC, DEIS, Heun,
            Consistency, BDIA, LML. None: ``UniPC()``.
        steps: number of steps. With ``times`` it may be left out.
        times: the whole time grid (steps + 1 numbers), such as the grids of ``ccfast.times``. None: from ``start`` to
            ``end``, uniform in schedule time, and for VE and EDM ``times.karras``.
        start, end: schedule times of the first and last state. None: the most noise of the schedule, or for a network
            that does not determine the sample there (eps where mu = 0) the time of sigma/mu = 4096; and the clean end.
        backend, device, compile_network, autocast, graph, check_finite, clip, nan: as for ``Sampler``.

    Raises:
        TypeError, ValueError: an argument breaks its rule; the message says name, rule and value.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        solver: Solver | None = None,
        steps: int = DEFAULT_STEPS,
        times: Sequence[float] | Array | None = None,
        *,
        start: float | None = None,
        end: float | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        compile_network: bool = False,
        autocast: torch.dtype | None = None,
        graph: bool | str = "auto",
        check_finite: bool = True,
        clip: Clip | Literal["auto"] = "auto",
        nan: str = "raise",
    ) -> None:
        self._arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        if not isinstance(denoiser, Denoiser):
            raise TypeError(f"denoiser: must be a ccfast Denoiser, got {type(denoiser).__name__}")
        self.denoiser, self.solver = denoiser, UniPC() if solver is None else solver
        latents = isinstance(denoiser, LatentDenoiser)
        self._autoencoder = denoiser.autoencoder if latents else None
        self._of_states = denoiser.without_autoencoder() if latents else denoiser
        self._options = {
            "backend": backend,
            "device": device,
            "compile_network": compile_network,
            "autocast": autocast,
            "graph": graph,
            "check_finite": check_finite,
            "clip": clip,
            "nan": nan,
        }
        if times is None:
            grid = _grid(denoiser, count_of("steps", steps), start, end)
            self._options |= {"times": grid}
        else:
            # The default number of steps is no contradiction to a grid of another length, and any other number is one.
            steps_given = None if steps == DEFAULT_STEPS else steps
            self._options |= {"times": times, "steps": steps_given, "start": start, "end": end}
        self._samplers: OrderedDict[tuple[int, ...], Sampler] = OrderedDict()
        self._lock = threading.Lock()
        self._past: Counter[str] = Counter()
        self._smallest = Sampler(self._of_states, Denoising(SMALLEST), self.solver, **self._options)
        _check_blind(self._smallest.plan)

    def __reduce__(self) -> tuple[Any, ...]:
        """A generator is made again from its arguments: it can be pickled, copied and sent to other processes."""
        return _made, (type(self), self._arguments)

    def __repr__(self) -> str:
        times = self.plan.times
        parts = [repr(self.denoiser), repr(self.solver), f"steps={len(times) - 1}", f"t={times[0]:g} to {times[-1]:g}"]
        return f"Generator({', '.join(parts)}, backend={self.backend!r}, device={str(self.device)!r})"

    @property
    def device(self) -> torch.device:
        """The device where it runs."""
        return self._smallest.device

    @property
    def backend(self) -> str:
        """Name of the backend that runs the loop's operations."""
        return self._smallest.backend

    @property
    def plan(self) -> Plan:
        """The program that the loop runs, which is the same for all shapes; ``sampler(shape).plan.explain()`` shows
        the kernels that run it for one shape."""
        return self._smallest.plan

    def __call__(
        self,
        n: int,
        shape: tuple[int, ...],
        seed: Seed = 0,
        condition: Mapping[str, Any] | None = None,
        *,
        x_init: Tensor | tuple[Tensor, Tensor] | None = None,
        callback: Callback | None = None,
        together: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Generate n images.

        Args:
            n: the number of images.
            shape: of one image, (C, H, W), or (C, L) for signals. With ``ccfast.latent`` that of a decoded image.
            seed: an integer, or one for each image. All randomness of image b follows from its seed and, where one
                integer serves all, its place b, never from n or ``together``. None: a seed from torch's generator; a
                torch.Generator: a seed from that.
            condition: keyword arguments of the network for this call, beside the denoiser's ``network_kwargs`` and in
                place of those with the same names. A tensor has one row, or one for each image.
            x_init: state at the first time (n, *shape), in place of sigma times noise; or the states at the first two
                times, as ``invert`` returns them. States of ``ccfast.latent`` are latents.
            callback: called after every network evaluation as callback(step, x0hat); returning True stops the run at
                the state that this step leads to.
            together: how many images are run as one batch; None: all of them.
            dtype: of the state, torch.float32, or torch.float64 for reference runs.

        Returns:
            (n, *shape), a tensor of the caller's own, on the generator's device.

        Raises:
            TypeError, ValueError: a bad argument, or a network with a wrong output.
            ccfast.errors.NonFiniteError: images of the result are not finite; a FloatingPointError.
        """
        n = count_of("n", n, 0)
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"dtype: must be torch.float32 or torch.float64, got {dtype!r}")
        if together is not None and (not is_integer(together) or together < 1):
            raise ValueError(f"together: must be an integer >= 1 or None, got {together!r}")
        sampler, size = self.sampler(shape), n if together is None else min(n, int(together))
        if callback is not None and size < n:
            raise ValueError(f"callback: sees one batch, so that together must be None or at least {n}, got {together}")
        check_transforms("n")
        draws, condition = per_image_draws(seed, n), check_condition(condition, n, self.device)
        with settled(self.device):
            x = torch.empty((n, *sampler.operator.shape), dtype=dtype, device=self.device)
        states = () if x_init is None else sampler._door.states("x_init", x_init, tuple(x.shape), dtype)
        for first in range(0, n, max(1, size)):
            places = list(range(first, min(n, first + size)))
            part = slice(first, places[-1] + 1)
            # The rows of a part are taken here, so that one captured run serves every part of a size.
            rows = condition if size == n else self._rows(condition, places, n)
            given = Given(draws.take(places), tuple(state[part] for state in states), callback, rows)
            with settled(self.device):
                x[part] = sampler._run(sampler._program, torch.zeros_like(x[part]), sampler.operator, given)
        if self._autoencoder is not None:
            image = check_shape(type(self).__name__, shape)
            with settled(self.device):
                decoded = [self._autoencoder.decode(z, image) for z in x.split(max(1, size)) if len(z)]
                x = torch.cat(decoded) if decoded else x.new_empty((0, *image))
        return sampler._settled(x)

    def sampler(self, shape: tuple[int, ...]) -> Sampler:
        """The sampler that generates images of one shape, (C, H, W) or (C, L), or the latents of such images.

        Its operator is not looked at.
        """
        own = check_shape(type(self).__name__, shape)
        return self._sampler(own if self._autoencoder is None else self._autoencoder.latent_shape(own))

    def _sampler(self, own: tuple[int, ...]) -> Sampler:
        """The sampler of states of one shape."""
        with self._lock:
            if own in self._samplers:
                self._samplers.move_to_end(own)
                return self._samplers[own]
        made = Sampler(self._of_states, Denoising(own), self.solver, **self._options)
        with self._lock:
            sampler = self._samplers.setdefault(own, made)
            while len(self._samplers) > MOST_SHAPES:
                self._past.update(_totals(self._samplers.popitem(last=False)[1].stats()))
        return sampler

    def invert(self, x: Tensor, condition: Mapping[str, Any] | None = None) -> tuple[Tensor, Tensor]:
        """The states at the first two times from which the generator comes to the states x, as ``Sampler.invert``.

        ``generator(len(x), x.shape[1:], x_init=generator.invert(x))`` is x to rounding, for a solver that can be run
        backwards (BDIA).
        """
        if not isinstance(x, Tensor):
            raise TypeError(f"x: must be a torch.Tensor, got {type(x).__name__}")
        return self._sampler(check_shape(type(self).__name__, x.shape[1:])).invert(x, condition)

    def warmup(self, n: int, shape: tuple[int, ...], condition: Mapping[str, Any] | None = None) -> float:
        """Run once for n images of a shape, compiling what compiles lazily and capturing the graph; the seconds."""
        return self.sampler(shape).warmup(n, condition)

    def memory_estimate(
        self, n: int, shape: tuple[int, ...], condition: Mapping[str, Any] | None = None
    ) -> MemoryEstimate:
        """Bytes that a call needs for n images of a shape in one batch, without running it; see ``MemoryEstimate``."""
        return self.sampler(shape).memory_estimate(n, condition)

    def stats(self) -> dict[str, Any]:
        """Totals over all calls and shapes, as ``Sampler.stats`` has them."""
        with self._lock:
            samplers, totals = list(self._samplers.values()), Counter(self._past)
        found = [sampler.stats() for sampler in samplers] or [self._smallest.stats()]
        for stats in found:
            totals.update(_totals(stats))
        graph = dict(found[0]["graph"])
        graph["eager"] = dict(sum((Counter(stats["graph"]["eager"]) for stats in found), Counter[str]()))
        graph["replays"] = sum(stats["graph"]["replays"] for stats in found)
        if "graphs" in graph:
            graph["graphs"] = [one for stats in found for one in stats["graph"]["graphs"]]
        totals = {name: totals[name] for name in _totals(found[0])}
        return {**totals, "backend": self.backend, "kernels": self.plan.kernels, "graph": graph}

    def _rows(self, condition: Mapping[str, Any], places: list[int], n: int) -> Mapping[str, Any]:
        """The network's keyword arguments for some of n images."""
        batch = Batch(len(places), places=tuple(places), given=n)
        return spread({**self.denoiser.network_kwargs, **condition}, batch)


def _grid(denoiser: Denoiser, steps: int, start: float | None, end: float | None) -> Array:
    """The times from the most noise, at which the network determines the sample, to the clean end."""
    schedule = denoiser.schedule
    noisy, clean = _ends(schedule)
    if start is None:
        start = noisy
        if schedule.mean(noisy) <= 0 and denoiser.prediction in ("epsilon", "score"):
            start = float(schedule.time(HIGHEST))
    return schedule.check_times(default_grid(schedule, start, clean if end is None else end, steps))


def _ends(schedule: Schedule) -> tuple[float, float]:
    """The times of the most and of the least noise."""
    low, high = schedule.time_range
    return (high, low) if schedule.std(high) > schedule.std(low) else (low, high)


def _check_blind(plan: Plan) -> None:
    """Raise ValueError for a plan that looks at the measurement."""
    for k, step in enumerate(plan.steps):
        over = any(term.modes is not None for term in step.row) or not plan.registers(k).isdisjoint(("r", "h"))
        over |= any(rule.keeps or "r" in rule.writes for rule in step.rules)  # These begin from the measurement.
        if over or ("ybar", 0) in step.reads:
            raise ValueError(
                f"solver: must not look at a measurement, since there is none, got {plan.solver}; those that do not "
                "are DDIM, DDPM, DPMSolverPP, UniPC, DEIS, Heun, Consistency, BDIA and LML"
            )


def _totals(stats: Mapping[str, Any]) -> dict[str, Any]:
    """The sums among the statistics of a sampler."""
    return {name: stats[name] for name in ("calls", "images", "network_evaluations", "vjps", "seconds")}


def _made(kind: type[Generator], arguments: dict[str, Any]) -> Generator:
    return kind(**arguments)
