"""All figures of a machine, as one result that also holds what they depend on."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.peak_memory import memory_states, state_buffers
from bench.rivals import published
from bench.startup import import_seconds
from ccfast.app.benchmark import cpu_load, environment
from ccfast.app.benchmark.cases import KINDS, Case, registry
from ccfast.app.benchmark.measure import Harness, Record
from ccfast.app.benchmark.text_report import with_share

__all__ = ["RESULTS", "run_all"]

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent


def run_all(
    cases: Sequence[Case],
    threads: Sequence[int] = (1, 2),
    rounds: int = 21,
    compiled: bool = True,
    busy: bool = False,
    say: Callable[[str], object] = lambda text: print(text, file=sys.stderr, flush=True),
) -> dict[str, Any]:
    """Measure the cases with each number of threads, and also the import, the memory and steps with the prior.

    Raises:
        BusyError: other processes use the CPU, and ``busy`` does not allow it.
        GateError: a contender computes a wrong result.
    """
    if not environment.configured() and not busy:
        raise cpu_load.BusyError("environment: malloc's settings must be there from the start; use python -m bench")
    before = cpu_load.foreign_load() if busy else cpu_load.refuse_when_busy()
    commit, started = environment.commit(ROOT), datetime.datetime.now(datetime.UTC)
    harness = Harness(rounds, compiled, {"published": published}, busy)
    records: list[Record] = []
    priors: list[Record] = []
    for count in threads:
        with environment.threads(count):
            for record in _with_threads(harness, cases, priors, count):
                records.append(record)
                say(f"{len(records)}: {record['op']} {record['kind']} {record['shape'][0]} x{count}")
    side = cases[0].side
    memory = {kind: round(state_buffers(Case("step", kind, 1, side)), 2) for kind in KINDS}
    memory_floor = {kind: round(memory_states(Case("step", kind, 1, side)), 2) for kind in KINDS}
    during = max(record["load"] for record in [*records, *priors])
    return {
        "machine": environment.machine(),
        "commit": commit,
        "date": started.isoformat(timespec="seconds"),
        "minutes": round((datetime.datetime.now(datetime.UTC) - started).total_seconds() / 60, 1),
        "settings": {**environment.SETTINGS, "configured": environment.configured(), "rounds": rounds},
        "load": {"before": round(before, 3), "during": during, "limit": cpu_load.LIMIT, "busy": _busy(before, during)},
        "import": import_seconds(min(rounds, 7)),
        "memory": memory,
        "memory_floor": memory_floor,
        "priors": priors,
        "records": records,
    }


def _busy(*cores: float) -> bool:
    return max(cores) > cpu_load.LIMIT


def _with_threads(harness: Harness, cases: Sequence[Case], priors: list[Record], count: int) -> Iterator[Record]:
    """The records of the cases with their share of a step.

    The share of a step outside the network is measured; that of an operation is its time over that of a step.
    """
    known: dict[tuple[str, int, int], Record] = {}

    def prior(kind: str, case: Case) -> Record:
        key = (kind, case.batch, case.side)
        if key not in known:
            known[key] = harness.with_prior(Case("step", kind, case.batch, case.side))
            priors.append({"kind": kind, "batch": case.batch, "side": case.side, "threads": count, **known[key]})
        return known[key]

    for case in cases:
        record = harness.measure(case)
        if case.op == "step":
            record["share"] = prior(case.kind, case)["share"]
        elif case.op not in ("plan", "photo"):
            record = with_share(record, prior("mask", case))
        yield record


def everything(short: bool = False) -> list[Case]:
    """The registry and whole steps with the prior; ``short`` takes what a few minutes allow."""
    photo = [] if short else [Case("photo", kind) for kind in ("mask", "banded")]
    return [*registry(batches=(1,) if short else (1, 8), short=short), *photo]
