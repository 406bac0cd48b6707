"""The table of speed of docs/results.md, which ``python -m bench.speed_table`` writes from bench/results/cpu.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.page_block import PageBlock
from bench.speed_targets import judge
from ccfast.app.benchmark.measure import Record
from ccfast.app.benchmark.text_report import cells, duration

__all__ = ["BLOCK", "NAME", "full_page", "load", "render", "write"]

NAME = "cpu"
"""The result that the page shows."""

FLOOR = """\
The floor of an operation is what it cannot do without as it is written, in times of the triad: its call (from Python to
the kernel, measured after images have driven its code out of the caches), and then the longer of memory (the triad, 1x)
and arithmetic (its own time where all data is in the cache, scaled to the size). On two threads it comes out above the
time of one image itself, which fits the caches: the measured call follows more data than one image has. Missed:"""

BLOCK = PageBlock("bench", "make figures")
_COLUMNS = ("op", "operator", "threads", "time", "GB/s", "of triad", "eager", "compile", "published", "of a step")


def load() -> dict[str, Any] | None:
    """The result that the page shows; None before anything was measured."""
    path = Path(__file__).parent / "results" / f"{NAME}.json"
    return json.loads(path.read_text()) if path.exists() else None


def write(result: dict[str, Any] | None) -> None:
    """Write the table of a result into the page."""
    BLOCK.write(render(result))


def render(result: dict[str, Any] | None) -> str:
    """Markdown that says where the result was measured, and the rows of one image in float32."""
    if result is None:
        return "Not measured yet; `make figures` does.\n"
    rows = [r for r in result["records"] if r["shape"][0] == 1 and r["dtype"] == "float32" and r["op"] != "plan"]
    return f"{_where(result)}\n{_markdown(rows, _COLUMNS)}\n{_rest(result)}"


def full_page(result: dict[str, Any]) -> str:
    """Markdown with all rows."""
    columns = ("op", "operator", "shape", "F", *_COLUMNS[2:6], "floor", *_COLUMNS[6:])
    rows = [record for record in result["records"] if record["op"] != "plan"]
    return f"# Figures\n\n{_where(result)}\n{_markdown(rows, columns)}\n{_rest(result)}\n{_targets(result)}"


def _targets(result: dict[str, Any]) -> str:
    """The targets of speed that are missed, each with the floor that was measured."""
    judged = judge(result)
    missed = [f"- {target.what}: {target.measured} (asked: {target.bound})" for target in judged if not target.met]
    return f"## Targets\n\nMet: {len(judged) - len(missed)} of {len(judged)}. {FLOOR}\n\n" + "\n".join([*missed, ""])


def _where(result: dict[str, Any]) -> str:
    machine, load = result["machine"], result["load"]
    text = (
        f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}, commit {result['commit']}, "
        f"{result['date'][:10]}; medians of up to {result['settings']['rounds']} interleaved rounds.\n"
    )
    if load["busy"]:
        text += (
            f"**Preliminary: other processes used up to {load['during']:.1f} cores meanwhile**, so that times and "
            "ratios are not to be relied on.\n"
        )
    return text


def _rest(result: dict[str, Any]) -> str:
    """A paragraph on plans, import and memory."""
    parts = []
    for record in result["records"]:
        if record["op"] == "plan" and record["threads"] == 1:
            seconds = {name: duration(value["median"]) for name, value in record["seconds"].items()}
            rivals = [f"{name} {value}" for name, value in seconds.items() if name != "ccfast"]
            parts.append(f"a plan of five steps, {record['operator']}: {', '.join([seconds['ccfast'], *rivals])}")
    parts.append(f"import over `import torch`: {duration(result['import']['ccfast']['median'])}")
    memory = ", ".join(f"{kind} {buffers:g}" for kind, buffers in result["memory"].items())
    return "; ".join(parts).capitalize() + f".\nPeak memory outside the network in buffers of the state: {memory}.\n"


def _markdown(records: Sequence[Record], columns: Sequence[str]) -> str:
    heading, *rows = cells(records, columns)
    lines = [heading, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    write(load())
