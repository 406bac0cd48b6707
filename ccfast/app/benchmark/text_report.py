"""Records as a table of text: our times, and how many times longer each rival takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .measure import Floor, Record, own

__all__ = ["COLUMNS", "cells", "duration", "ratio", "text_table", "with_share"]


def ratio(record: Record, rival: str) -> float | None:
    """How many times longer a rival takes than our contender, by medians; None where the record has no such rival."""
    seconds = record["seconds"]
    if rival not in seconds or rival == own(record):
        return None
    return seconds[rival]["median"] / seconds[own(record)]["median"]


def _time(record: Record) -> str:
    return duration(record["seconds"][own(record)]["median"])


def duration(seconds: float) -> str:
    """The duration with three digits, in the unit that fits."""
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
"""The function that makes the cell of a record, by the heading of its column.

"eager", "compile" and "published" say how many times longer these rivals take. "floor" is the least time that the
operation could take as it is written (``measure.Floor``), as a part of the time that it takes."""


def cells(records: Iterable[Record], columns: Sequence[str]) -> list[list[str]]:
    """The cells of a table, the headings first, then a row for each record."""
    return [list(columns), *([COLUMNS[column](record) for column in columns] for record in records)]


def text_table(records: Sequence[Record], columns: Sequence[str] = tuple(COLUMNS)) -> str:
    """The table with aligned columns, without those that are empty in every row."""
    rows = cells(records, columns)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    filled = [any(cell for cell in column[1:]) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width, keep in zip(row, widths, filled, strict=True) if keep).rstrip()
        for row in rows
    )


def with_share(record: Record, prior: Record) -> Record:
    """The record with "share", its time over that of a step with the bundled prior (``Harness.with_prior``)."""
    if record["op"] == "plan":
        return record
    return record | {"share": record["seconds"][own(record)]["median"] / (prior["inside"] + prior["outside"])}
