"""The measurement of one case: every rival passes the gate, then all are timed in turn, beside a triad."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...engine.backends import can_run
from ...priors import load_prior
from ...sampler import Sampler
from .cases import KINDS, Case
from .cpu_load import LIMIT, BusyError, ForeignLoad
from .prepared_cases import Run, prepare, triad
from .steps import PreparedStep, Restore
from .timing import Sampling, interleave, repeated, summary

__all__ = ["Harness", "Record", "Rival", "own"]

Record = dict[str, Any]

GATE, PRIOR_GATE = 1e-5, 1e-4
"""The relative error that a run in float32 is allowed, with a stand-in for the network and with a trained network."""

_BACKENDS = {"native": "native", "eager": "reference"}
"""The backend that each of our contenders runs on, by the name that records give the contender."""


class Rival(NamedTuple):
    """A sampler that is not ours.

    Attributes:
        restore: the run that is timed.
        exact: the same code with the settings tightened that cost it digits; this run has to pass the gate.
        plan: the computation that takes the place of our planning.
    """

    restore: Restore
    exact: Restore
    plan: Callable[[], object]


TINY = 16
"""The side of an image so small that an operation on it takes as long as its call alone."""

SWEEP = 1 << 23
"""Bytes whose reading leaves nothing of an earlier call in the processor's caches."""


def floors(case: Case) -> dict[str, Run]:
    """The runs that the floor of a native operation is computed from; none for noise or without the native backend.

    "call" is the operation on a tiny image, where nothing but the call takes time, and "swept call" the same after
    "sweep", which fills the caches as images do. "cached" is the operation on an image of half the side, so that all
    that it moves is in the cache.
    """
    if case.op == "noise" or not can_run("native"):
        return {}
    small = {"call": replace(case, batch=1, side=TINY), "cached": replace(case, batch=1, side=case.side // 2)}
    runs = {name: prepare(other).rivals(compiled=False)["native"] for name, other in small.items()}
    sweep = triad(SWEEP)
    return {**runs, "sweep": sweep, "swept call": partial(_both, sweep, runs["call"])}


def _both(first: Run, second: Run) -> Tensor:
    first()
    return second()


class Floor(NamedTuple):
    """The least time, in seconds, that an operation could take as it is written.

    Attributes:
        call: the way from Python to the kernel, whose code the images of the call before drove out of the caches.
        memory: the time of a triad that moves the same bytes.
        arithmetic: the operation's own time where all its data is in the cache, scaled to the size of the case.
    """

    call: float
    memory: float
    arithmetic: float

    def seconds(self) -> float:
        """The call, and then the longer of memory and arithmetic, which overlap."""
        return self.call + max(self.memory, self.arithmetic)


def floor(seconds: Mapping[str, dict[str, Any]], case: Case) -> Floor | None:
    """The floor from the medians of ``floors``, of the triad and of the operation; None where they were not measured.

    No part of the floor can exceed the time of the operation itself.
    """
    if "call" not in seconds:
        return None
    median = {name: value["median"] for name, value in seconds.items()}
    call, took = median["call"], median["native"]
    times = case.batch * (case.side / (case.side // 2)) ** 2
    arithmetic = times * (median["cached"] - call)
    return Floor(max(call, median["swept call"] - median["sweep"]), median["triad"], min(took, arithmetic))


def own(record: Record) -> str:
    """The name of our contender in a record: the native backend, or the reference where there is no native code."""
    return next(name for name in ("native", "eager", "ccfast") if name in record["seconds"])


@dataclass
class Harness:
    """How cases are measured.

    Args:
        rounds: how often each rival is timed.
        compiled: whether torch.compile is among the rivals.
        rivals: functions that make further rivals for whole steps, by name; one that does not know the operator
            returns None.
        busy: whether to measure although other processes use the CPU.
        attempts: how often a case is measured at most until no other process disturbs it.
    """

    rounds: int = 21
    compiled: bool = True
    rivals: Mapping[str, Callable[[PreparedStep], Rival | None]] = field(default_factory=dict)
    busy: bool = False
    attempts: int = 3

    def measure(self, case: Case) -> Record:
        """The record of a case, with the threads that torch has now.

        Raises:
            GateError: a rival computes something else than the reference.
            BusyError: other processes used the CPU in every attempt.
        """
        ways: dict[str, Callable[[Case], Record]] = {"step": self._step, "plan": self._plan, "photo": self._photo}
        record = ways.get(case.op, self._operation)(case)
        head = {
            "op": case.op,
            "kind": case.kind,
            "operator": KINDS[case.kind][0] if case.kind in KINDS else "any",
            "shape": list(case.shape),
            "dtype": case.dtype_name,
            "threads": torch.get_num_threads(),
        }
        return head | record

    def with_prior(self, case: Case) -> Record:
        """Seconds of a step with the bundled prior, inside and outside the network, and the share of those outside."""
        prepared = PreparedStep(case, load_prior("photo").network, steps=3 if case.batch == 1 else 2)
        restore = prepared.of_backend("auto")

        def split() -> dict[str, float]:
            prepared.outside(restore)
            return {"inside": median(prepared.clock.inside), "outside": median(prepared.clock.outside)}

        split()
        (seconds, cores) = self._undisturbed(split)
        return seconds | {"share": seconds["outside"] / sum(seconds.values()), "load": cores}

    # ------------------------------------------------------------------------------------ what is measured how
    def _operation(self, case: Case) -> Record:
        prepared = prepare(case)
        with torch.no_grad():
            runs = prepared.rivals(self.compiled)
            errors = prepared.check(runs)
            everything = {**runs, **prepared.ungated, **floors(case), "triad": triad(prepared.bytes)}
            record = self._time({name: repeated(run) for name, run in everything.items()})
        parts = floor(record["seconds"], case)
        record["floor"] = parts and parts._asdict()
        speed = prepared.bytes / record["seconds"][own(record)]["median"] / 1e9
        return record | {"errors": errors, "bytes": prepared.bytes, "gb_per_s": speed}

    def _step(self, case: Case) -> Record:
        """Time steps outside the network; for "compile" whole steps, since the network, one product, is fused in."""
        prepared = PreparedStep(case)
        runs, errors = self._contenders(prepared, GATE)
        samplings: dict[str, Sampling] = {
            name: partial(prepared.whole if name == "compile" else prepared.outside, restore)
            for name, restore in runs.items()
        }
        return self._time(samplings) | {"errors": errors}

    def _photo(self, case: Case) -> Record:
        """Time whole steps with the bundled prior, its network and VJP included."""
        prepared = PreparedStep(case, load_prior("photo").network, steps=3)
        runs, errors = self._contenders(prepared, PRIOR_GATE)
        samplings: dict[str, Sampling] = {name: partial(prepared.whole, restore) for name, restore in runs.items()}
        return self._time(samplings) | {"errors": errors}

    def _plan(self, case: Case) -> Record:
        """Time the making of a sampler of five steps: "ccfast" without noise, "noise" with it where it can be."""
        prepared = PreparedStep(case)
        make = partial(Sampler, prepared.denoiser, prepared.operator, prepared.solver)
        runs: dict[str, Callable[[], object]] = {"ccfast": make}
        note = {}
        try:
            make(noise_std=0.05)
            runs["noise"] = partial(make, noise_std=0.05)
        except ValueError as error:
            note["no_noise"] = str(error)
        runs |= {name: rival.plan for name, rival in self._others(prepared).items()}
        return self._time({name: repeated(run) for name, run in runs.items()}) | note

    def _contenders(self, prepared: PreparedStep, limit: float) -> tuple[dict[str, Restore], dict[str, float]]:
        """Everything that restores, after it passed the gate, and the relative errors of what is timed."""
        runs = {name: prepared.of_backend(backend) for name, backend in _BACKENDS.items() if can_run(backend)}
        if self.compiled:
            runs["compile"] = prepared.compiled()
        others = self._others(prepared)
        errors = prepared.check(runs, limit)
        prepared.check({name: rival.exact for name, rival in others.items()}, limit)
        timed = {name: rival.restore for name, rival in others.items()}
        return runs | timed, errors | prepared.check(timed, math.inf)

    def _others(self, prepared: PreparedStep) -> dict[str, Rival]:
        made = {name: make(prepared) for name, make in self.rivals.items()}
        return {name: rival for name, rival in made.items() if rival is not None}

    # ------------------------------------------------------------------------------------ timing
    def _time(self, samplings: Mapping[str, Sampling]) -> Record:
        for sampling in samplings.values():
            sampling()  # A first run warms caches and allocators.
        seconds, cores = self._undisturbed(lambda: interleave(samplings, self.rounds))
        return {"seconds": {name: summary(values) for name, values in seconds.items()}, "load": cores}

    def _undisturbed(self, measure: Callable[[], Any]) -> tuple[Any, float]:
        """The result of an attempt in which other processes were quiet, and their load in cores."""
        cores = 0.0
        for _ in range(self.attempts):
            load = ForeignLoad()
            result = measure()
            cores = load.cores()
            if cores <= LIMIT or self.busy:
                return result, round(cores, 3)
        raise BusyError(
            f"load: other processes used {cores:.2f} cores (limit {LIMIT}) in each of {self.attempts} attempts; stop "
            "them, or give --busy for figures that say so"
        )
