"""What the sections of the report are made of: results, tables in Markdown, pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib import import_module
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

__all__ = ["DOCS", "Result", "error", "load", "mean", "missing", "origin", "picture", "pyplot", "save", "table"]

ROOT = Path(__file__).parents[2]
RESULTS, DOCS = ROOT / "bench" / "results", ROOT / "docs"

Result = dict[str, Any]


def load(name: str) -> Result | None:
    """A result by the name of its file without suffix; None before it was measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def missing(command: str) -> str:
    return f"Not measured yet: `{command}`.\n"


def origin(result: Result, **more: Any) -> str:
    """One line: the command, the commit, the machine and what is worth knowing of the settings."""
    machine = result["machine"]
    facts = [f"`{result['command']}`", f"commit {result['commit']}", machine["cpu"], f"torch {machine['torch']}"]
    return ", ".join([*facts, *(f"{name} {value}" for name, value in more.items())]) + ".\n"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def mean(values: Sequence[float]) -> float:
    """NaN of none."""
    return fmean(values) if values else float("nan")


def error(values: Sequence[float]) -> float:
    """Standard error of the mean; 0 of one value."""
    return stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0


def picture(name: str, text: str) -> str:
    """The reference to a picture that ``save`` wrote."""
    return f"![{text}](report/{name}.png)\n"


def pyplot() -> Any:
    """matplotlib.pyplot, of the extra ``report``."""
    return import_module("matplotlib.pyplot")


def save(figure: Any, name: str) -> None:
    """Write docs/report/<name>.png; without a date in the file, so that equal results give equal files."""
    folder = DOCS / "report"
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    pyplot().close(figure)
