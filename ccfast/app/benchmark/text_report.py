"""Records as rows of text: times, and how many times longer everything else takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .measure import Floor, Record, own

__all__ = ["COLUMNS", "cells", "duration", "ratio", "text_table", "with_share"]


def ratio(record: Record, rival: str) -> float | None:
    """How many times longer a rival takes than ours, by medians."""
    seconds = record["seconds"]
    if rival not in seconds or rival == own(record):
        return None
    return seconds[rival]["median"] / seconds[own(record)]["median"]


def _time(record: Record) -> str:
    return duration(record["seconds"][own(record)]["median"])


def duration(seconds: float) -> str:
    """With three digits, in the unit that fits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def _times(rival: str) -> Callable[[Record], str]:
    def cell(record: Record) -> str:
        value = ratio(record, rival)
        return "" if value is None else f"{value:.2f}x" if value < 9.95 else f"{value:.0f}x"

    return cell


def _of_triad(record: Record) -> str:
    value = ratio(record, "triad")
    return "" if value is None else f"{value:.0%}"


def _floor(record: Record) -> str:
    parts = record.get("floor")
    return f"{Floor(**parts).seconds() / record['seconds'][own(record)]['median']:.0%}" if parts else ""


def _share(record: Record) -> str:
    return f"{record['share']:.2%}" if record.get("share") is not None else ""


COLUMNS: dict[str, Callable[[Record], str]] = {
    "op": lambda record: record["op"],
    "operator": lambda record: record["operator"],
    "shape": lambda record: "x".join(map(str, record["shape"])),
    "F": lambda record: record["dtype"],
    "threads": lambda record: str(record["threads"]),
    "time": _time,
    "GB/s": lambda record: f"{record['gb_per_s']:.1f}" if "gb_per_s" in record else "",
    "of triad": _of_triad,
    "floor": _floor,
    "eager": _times("eager"),
    "compile": _times("compile"),
    "published": _times("published"),
    "of a step": _share,
}
"""Heading -> cell. eager, compile and published: how many times longer they take; floor: the least that the operation
can take as it is written (``measure.Floor``), over its time."""


def cells(records: Iterable[Record], columns: Sequence[str]) -> list[list[str]]:
    """Heading and rows."""
    return [list(columns), *([COLUMNS[column](record) for column in columns] for record in records)]


def text_table(records: Sequence[Record], columns: Sequence[str] = tuple(COLUMNS)) -> str:
    """Aligned, without the columns that are empty throughout."""
    rows = cells(records, columns)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    filled = [any(cell for cell in column[1:]) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width, keep in zip(row, widths, filled, strict=True) if keep).rstrip()
        for row in rows
    )


def with_share(record: Record, prior: Record) -> Record:
    """The record with its part of a step with the bundled prior, as ``Harness.with_prior`` timed that."""
    if record["op"] == "plan":
        return record
    return record | {"share": record["seconds"][own(record)]["median"] / (prior["inside"] + prior["outside"])}
