"""Whole runs of five steps by ccfast and its rivals, with and without a CUDA graph, which have to pass a gate."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.gpu.clock import called, captured, seconds
from bench.gpu.surroundings import exact_float32
from ccfast import Denoiser, Sampler, load_prior, schedules, solvers
from ccfast.adapters.guided_diffusion import ADM, CONFIGS, Config
from ccfast.app.benchmark.prepared_cases import GateError
from ccfast.app.benchmark.steps import compiled_step, stand_in
from ccfast.operators import Bicubic
from ccfast.testing import relative_error

__all__ = ["CONTENDERS", "NETWORKS", "PreparedRun", "run_records"]

STEPS, W = 5, 2.0
GATE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""The relative distance from the eager run that is allowed, by the dtype of the network. Five steps of a network in
bfloat16 differ by some percent."""

BATCHES = (16, 4, 1)
"""The largest first, which is cut off last where time is short."""


def _photo() -> torch.nn.Module:
    network = load_prior("photo").network
    assert isinstance(network, torch.nn.Module)
    return network


def _adm() -> ADM:
    """The network for ImageNet at 256 x 256 with random weights, which take as long as trained ones."""
    return ADM(CONFIGS["imagenet256"]._replace(learned_variance=False))


NETWORKS: dict[str, tuple[Callable[[], torch.nn.Module], torch.dtype]] = {
    "photo": (_photo, torch.float32),
    "adm": (_adm, torch.bfloat16),
}
"""A function that makes each network, and the dtype that it runs in."""


@dataclass
class PreparedRun:
    """One network and one batch, on which each contender is a function that restores ``y`` from ``x_init``."""

    network: Callable[..., Tensor]
    dtype: torch.dtype
    batch: int
    side: int
    device: torch.device

    def __post_init__(self) -> None:
        self.operator = Bicubic((3, self.side, self.side), 4)
        generator = torch.Generator(self.device).manual_seed(0)
        shape = (self.batch, *self.operator.shape)
        image, self.x_init = (torch.randn(shape, device=self.device, generator=generator) for _ in range(2))
        self.y = self.operator.forward(0.3 * image)
        self.denoiser = Denoiser(self.network, schedules.VP())

    def restorer(self, backend: str, graph: bool, **options: Any) -> Callable[[], Tensor]:
        sampler = Sampler(
            self.denoiser, self.operator, solvers.Conjugate(W), STEPS, backend=backend, graph=graph,
            device=self.device, check_finite=False, **options,
        )  # fmt: skip
        return lambda: sampler(self.y, x_init=self.x_init)

    def as_called(self) -> Callable[[], Tensor]:
        """The call of a user who leaves every option as it is, from a measurement and a seed."""
        sampler = Sampler(self.denoiser, self.operator, solvers.Conjugate(W), STEPS, device=self.device)
        sampler.warmup(self.batch)
        return lambda: sampler(self.y, seed=0)

    def eager_call(self, x: Tensor, t: Tensor) -> Tensor:
        """The network as rivals call it that know no dtype but that of the state."""
        return self.network(x.to(self.dtype), t).to(x.dtype)

    def compiled(self, graph: bool) -> Callable[[], Tensor]:
        sampler = Sampler(self.denoiser, self.operator, solvers.Conjugate(W), STEPS, backend="reference", graph=False)
        restore = compiled_step(self.eager_call, self.operator, sampler.plan, self.device)
        if not graph:
            return lambda: restore(self.y, self.x_init)
        result: list[Tensor] = []

        def once() -> None:
            result[:] = [restore(self.y, self.x_init)]

        replay = captured(once, self.device)

        def run() -> Tensor:
            replay()
            return result[0]

        return run

    def published(self) -> Callable[[], Tensor]:
        from bench.published import Published  # The machine may have no scipy.

        times = Sampler(self.denoiser, self.operator, solvers.Conjugate(W), STEPS).plan.times
        denoiser = Denoiser(self.eager_call, schedules.VP())
        rival = Published(denoiser, self.operator, W, 0.0, np.asarray(times).tolist(), device=self.device)
        return lambda: rival(self.y, self.x_init)


AS_CALLED = "ccfast as called"

CONTENDERS: dict[str, Callable[[PreparedRun], Callable[[], Tensor]]] = {
    "eager": lambda p: p.restorer("reference", False),
    "ccfast": lambda p: p.restorer("auto", False),
    "published": lambda p: p.published(),
    "eager + graph": lambda p: p.restorer("reference", True),
    "ccfast + graph": lambda p: p.restorer("auto", True),
    AS_CALLED: lambda p: p.as_called(),
    "ccfast + compiled network + graph": lambda p: p.restorer("auto", True, compile_network=True),
    "compiled step": lambda p: p.compiled(False),
    "compiled step + graph": lambda p: p.compiled(True),
}
"""The contenders. Those that are compiled, which takes minutes, are run when all networks have been run without."""


def run_records(
    device: torch.device, deadline: float, full: bool = True, compiled: bool = True
) -> Iterator[dict[str, Any]]:
    """A record for every network, batch and contender; one that is left out has "why" in place of seconds.

    Args:
        device: the device that everything runs on.
        deadline: the value of ``time.monotonic`` after which no contender is begun.
        full: whether to take the networks and batches of the project, and not one small image for a dry run.
        compiled: whether contenders with torch.compile are run.
    """
    side = 256 if full else 16
    networks = ["stand-in", *NETWORKS]
    for late in (False, True):
        for name in networks if not late else [n for n in networks if n != "stand-in"]:
            network, dtype = _network(name, full, device)
            chosen = {c: make for c, make in CONTENDERS.items() if late == ("compiled" in c)}
            batches = BATCHES if full else (1,)
            yield from _of_network(name, network, dtype, side, batches, device, deadline, compiled, chosen)
            del network


def _network(name: str, full: bool, device: torch.device) -> tuple[Callable[..., Tensor], torch.dtype]:
    if name == "stand-in":
        return stand_in, torch.float32
    make, dtype = NETWORKS[name]
    if not full and name == "adm":
        make = _tiny
    torch.manual_seed(0)
    return make().to(device=device, dtype=dtype).eval().requires_grad_(False), dtype


def _tiny() -> ADM:
    return ADM(Config(32, (1,), 1, (1,), head_channels=32, learned_variance=False))


def _of_network(
    name: str,
    network: Callable[..., Tensor],
    dtype: torch.dtype,
    side: int,
    batches: tuple[int, ...],
    device: torch.device,
    deadline: float,
    compiled: bool,
    contenders: dict[str, Callable[[PreparedRun], Callable[[], Tensor]]],
) -> Iterator[dict[str, Any]]:
    """The records of one network."""
    truths: dict[int, Tensor] = {}
    for contender, make in contenders.items():
        for batch in batches:
            record = {"network": name, "batch": batch, "side": side, "contender": contender}
            why = _left_out(contender, device, deadline, compiled)
            if why is None:
                try:
                    prepared = PreparedRun(network, dtype, batch, side, device)
                    record |= _measured(contender, make, prepared, truths)
                # No memory, a failed capture or compilation, a wrong result, no scipy: the others are run all the same.
                except Exception as error:
                    why = f"{type(error).__name__}: {str(error)[:200]}"
                finally:
                    torch.compiler.reset()
                    if device.type == "cuda":
                        torch.cuda.empty_cache()
            yield record if why is None else record | {"why": why}


def _left_out(contender: str, device: torch.device, deadline: float, compiled: bool) -> str | None:
    if time.monotonic() > deadline:
        return "no time left"
    if "graph" in contender and device.type != "cuda":
        return "there are no graphs on this device"
    return None if compiled or "compiled" not in contender else "not compiled in this run"


def _measured(
    contender: str,
    make: Callable[[PreparedRun], Callable[[], Tensor]],
    prepared: PreparedRun,
    truths: dict[int, Tensor],
) -> dict[str, Any]:
    if prepared.batch not in truths:
        with exact_float32():
            truths[prepared.batch] = prepared.restorer("reference", False)().clone()
    error, allowed = None, GATE[prepared.dtype]
    if contender != AS_CALLED:  # It draws its own first state.
        with exact_float32():
            error = relative_error(make(prepared)().clone(), truths[prepared.batch])
        gc.collect()  # A graph that was captured without TF32 goes with its sampler.
        if not error <= allowed and contender != "published":  # It loses digits in float32, as published.
            raise GateError(f"{contender}: off by {error:.1e}, allowed are {allowed:.1e}")
    begun = time.monotonic()
    run = make(prepared)
    run()
    ready = time.monotonic() - begun
    peak = {}
    if prepared.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    clock = called if contender == AS_CALLED else seconds
    took = clock(run, prepared.device, 5 if prepared.device.type == "cuda" else 1)
    if prepared.device.type == "cuda":
        peak = {"peak_bytes": torch.cuda.max_memory_allocated()}
    return {"seconds": took.seconds, "spread": took.spread, "first_call": ready, "error": error} | peak
