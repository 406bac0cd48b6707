"""The targets of speed that the project set itself, each compared with a result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ccfast.app.benchmark.cases import LOCAL
from ccfast.app.benchmark.measure import Floor, Record, own
from ccfast.app.benchmark.text_report import duration, ratio

__all__ = ["Target", "judge"]

TRIAD, COMPILE = 1.25, 1.0
PUBLISHED = {"banded": 30.0, "mask": 20.0}


class Target(NamedTuple):
    """A bound that the project set itself, what was measured, and whether that keeps the bound."""

    what: str
    measured: str
    bound: str
    met: bool

    def __str__(self) -> str:
        return f"{'met   ' if self.met else 'MISSED'}  {self.what}: {self.measured} (asked: {self.bound})"


def judge(result: dict[str, Any]) -> list[Target]:
    """Every target that the result has figures for."""
    targets = [target for record in result["records"] for target in _of_record(record)]
    added = result["import"]["ccfast"]["median"]
    targets.append(Target("import ccfast over import torch", duration(added), "under 300 ms", added < 0.3))
    for kind, buffers in result["memory"].items():
        floor = result.get("memory_floor", {}).get(kind)
        measured = f"{buffers:.2f} states" + ("" if floor is None else f", floor {floor:.2f}")
        targets.append(Target(f"memory outside the network, {kind}", measured, "under 6", buffers < 6))
    return targets


def _floor(record: Record) -> str:
    """The floor and its parts in times of the triad, which say why a bound may be out of reach."""
    if not record.get("floor"):
        return ""
    parts = Floor(**record["floor"])
    floor, call, arithmetic = (
        f"{value / parts.memory:.2f}x" for value in (parts.seconds(), parts.call, parts.arithmetic)
    )
    return f"; floor {floor}: call {call}, then memory 1x or arithmetic {arithmetic}"


def _of_record(record: Record) -> Iterator[Target]:
    shape = "x".join(map(str, record["shape"]))
    where = f"{record['op']} {record['kind']} {shape} {record['dtype']}, {record['threads']} threads"
    seconds = record["seconds"]
    if record["op"] == "plan":
        yield Target(where, duration(seconds["ccfast"]["median"]), "under 2 ms", seconds["ccfast"]["median"] < 2e-3)
        if "noise" in seconds:
            noise = seconds["noise"]["median"]
            yield Target(f"{where}, with noise", duration(noise), "under 50 ms", noise < 50e-3)
    if record["op"] in ("residual", "update") and record["kind"] in LOCAL:
        over = seconds[own(record)]["median"] / seconds["triad"]["median"]
        measured = f"{over:.2f}x{_floor(record)}"
        yield Target(f"{where}, over the triad", measured, f"at most {TRIAD}x", over <= TRIAD)
        if (faster := ratio(record, "compile")) is not None:
            measured = f"{faster:.2f}x, {over:.2f}x the triad"
            yield Target(f"{where}, torch.compile over it", measured, "at least 1x", faster >= COMPILE)
    faster = ratio(record, "published")
    if record["op"] == "step" and record["shape"][0] == 1 and record["kind"] in PUBLISHED and faster is not None:
        bound = PUBLISHED[record["kind"]]
        yield Target(f"{where}, published over it", f"{faster:.1f}x", f"at least {bound:.0f}x", faster >= bound)
