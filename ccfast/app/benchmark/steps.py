"""The step outside the network: what a sampler does between the product with the Jacobian and the next evaluation."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ... import schedules, solvers
from ...denoiser import Denoiser
from ...engine.plan import Plan
from ...operators import Operator
from ...sampler import Sampler
from ...testing import relative_error
from .cases import Case
from .prepared_cases import GateError, total

__all__ = ["Clock", "PreparedStep", "Restore", "W", "compiled_step", "stand_in"]

STEPS, W = 5, 15.0
"""The number of steps of the run that is timed, and its guidance weight."""

Restore = Callable[[Tensor, Tensor], Tensor]
"""A whole run of a sampler, from the measurement y and the first state x_init to the restored images."""


def stand_in(x: Tensor, t: Tensor) -> Tensor:
    """A network that costs next to nothing."""
    return 0.9 * x


@dataclass
class Clock:
    """Splits the time of a run at the calls of its network.

    ``inside`` gets the seconds of the network and its VJP, ``outside`` all others, for each step but the last. The
    network has to be wrapped with ``network``, and the run has to be inside ``watching``.
    """

    inside: list[float] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)
    _entered: float | None = None
    _spent: float = 0.0

    def network(self, network: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(x: Tensor, t: Tensor, **options: Any) -> Tensor:
            now = time.perf_counter()
            if self._entered is not None:
                self.inside.append(self._spent)
                self.outside.append(now - self._entered - self._spent)
            self._entered = now
            output = network(x, t, **options)
            self._spent = time.perf_counter() - now
            return output

        return call

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Start a new run; until the end of the block, torch.autograd.grad counts as inside the network."""
        self.inside, self.outside, self._entered = [], [], None
        grad = torch.autograd.grad

        def timed(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = grad(*args, **options)
            self._spent += time.perf_counter() - start
            return result

        torch.autograd.grad = timed
        try:
            yield
        finally:
            torch.autograd.grad = grad


class PreparedStep:
    """One operator, the solver ``Conjugate`` and a network, of which whole runs are timed.

    Args:
        case: a row of the registry whose op is "step" or "photo".
        network: is called as network(x, t) and predicts eps on a VP schedule.
        steps: the number of steps of a run.
    """

    def __init__(self, case: Case, network: Callable[..., Tensor] = stand_in, steps: int = STEPS) -> None:
        self.case, self.steps, self.clock = case, steps, Clock()
        self.bare = network
        self._known_truth: Tensor | None = None
        self.operator = case.operator()
        self.denoiser = Denoiser(self.clock.network(network), schedules.VP())
        self.solver = solvers.Conjugate(w=W)
        generator = torch.Generator().manual_seed(0)
        image = 0.5 * torch.randn(case.shape, generator=generator)
        self.y = self.operator.forward(image)
        plan = self.sampler("reference").plan
        self.times = plan.times
        noise = torch.randn(case.shape, generator=generator)
        self.x_init = float(plan.mu[0]) * self.operator.pinv(self.y) + float(plan.sigma[0]) * noise

    def sampler(self, backend: str) -> Sampler:
        return Sampler(self.denoiser, self.operator, self.solver, steps=self.steps, backend=backend)

    def of_backend(self, backend: str) -> Restore:
        sampler = self.sampler(backend)
        return lambda y, x_init: sampler(y, x_init=x_init)

    def compiled(self) -> Restore:
        """The run with torch.compile of a whole step, its network (without the clock) and VJP included."""
        denoiser = Denoiser(self.bare, schedules.VP())
        sampler = Sampler(denoiser, self.operator, self.solver, steps=self.steps, backend="reference")
        return compiled_step(self.bare, self.operator, sampler.plan)

    def outside(self, restore: Restore) -> float:
        """The median, over the steps of one run, of the seconds outside the network."""
        with self.clock.watching():
            restore(self.y, self.x_init)
        return median(self.clock.outside)

    def share(self, restore: Restore) -> float:
        """The part of the time of one run that is spent outside the network."""
        with self.clock.watching():
            restore(self.y, self.x_init)
        outside = sum(self.clock.outside)
        return outside / (outside + sum(self.clock.inside))

    def whole(self, restore: Restore) -> float:
        """The seconds of one run, network included, over its number of steps."""
        start = time.perf_counter()
        restore(self.y, self.x_init)
        return (time.perf_counter() - start) / self.steps

    def check(self, restores: Mapping[str, Restore], limit: float) -> dict[str, float]:
        """The relative error of each run against the reference in float64.

        Raises:
            GateError: an error is above ``limit``.
        """
        truth = self._truth()
        errors = {name: relative_error(restore(self.y, self.x_init), truth) for name, restore in restores.items()}
        for name, error in errors.items():
            if not error <= limit:
                raise GateError(f"{self.case}: {name} is off by {error:.1e}, allowed are {limit:.1e}")
        return errors

    def _truth(self) -> Tensor:
        if self._known_truth is None:
            exact = copy.deepcopy(self.bare).double() if isinstance(self.bare, nn.Module) else self.bare
            denoiser = Denoiser(exact, schedules.VP())
            sampler = Sampler(denoiser, self.operator, self.solver, self.steps, backend="reference")
            self._known_truth = sampler(self.y.double(), x_init=self.x_init.double())
        return self._known_truth


def compiled_step(
    network: Callable[..., Tensor], operator: Operator, plan: Plan, device: torch.device | str = "cpu"
) -> Restore:
    """A run whose step is one graph of torch.compile: the fastest that torch offers without kernels of one's own.

    The step takes its coefficients from a tensor, so that one compiled function serves all steps.
    """
    keys = dict.fromkeys((term.register, term.modes is not None) for step in plan.steps for term in step.row)
    table = torch.tensor(
        np.stack([plan.numbers(name, projected=projected) for name, projected in keys], 1), device=device
    ).float()
    scales = torch.tensor([[step.p, step.q] for step in plan.steps], dtype=torch.float32, device=device)
    network_times = torch.tensor([step.network_time for step in plan.steps], dtype=torch.float64, device=device)

    def step(x: Tensor, ybar: Tensor, t: Tensor, row: Tensor, scale: Tensor) -> Tensor:
        output, pull = torch.func.vjp(lambda state: network(state, t), x)[:2]
        residual = ybar - operator.project(scale[0] * x + scale[1] * output)
        (product,) = pull(residual)
        terms = {"x": x, "F": output, "r": residual, "h": product}
        direct = [row[k] * terms[name] for k, (name, projected) in enumerate(keys) if not projected]
        inner = [row[k] * terms[name] for k, (name, projected) in enumerate(keys) if projected]
        return total(direct) + operator.project(total(inner)) if inner else total(direct)

    torch.compiler.reset()  # Without it, the functions of earlier cases count as recompilations, up to a limit.
    function = torch.compile(step, fullgraph=True, dynamic=False)

    def restore(y: Tensor, x_init: Tensor) -> Tensor:
        with torch.no_grad():
            ybar, x = operator.pinv(y), x_init
            times = network_times.to(x.dtype)[:, None].expand(-1, x.shape[0]).contiguous()
            for k in range(len(plan.steps)):
                x = function(x, ybar, times[k], table[k], scales[k])
            return x

    return restore
