"""The parts that the sections of the report are made of: results, tables in Markdown, pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

__all__ = [
    "DOCS",
    "Result",
    "error",
    "load",
    "mean",
    "missing",
    "origin",
    "parts",
    "picture",
    "pyplot",
    "save",
    "table",
]

ROOT = Path(__file__).parents[2]
RESULTS, DOCS = ROOT / "bench" / "results", ROOT / "docs"

Result = dict[str, Any]


def load(name: str) -> Result | None:
    """The result in the file with this name and the suffix .json; None before it was measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def missing(command: str) -> str:
    return f"Not measured yet: `{command}`.\n"


def parts(pattern: str, part: Callable[[Result], str], command: str) -> str:
    """What ``part`` makes of each result whose file name fits ``pattern``, or ``missing`` where there is none."""
    found = sorted(path.stem for path in RESULTS.glob(f"{pattern}.json"))
    return "\n".join(part(result) for name in found if (result := load(name))) or missing(command)


def origin(result: Result, **more: Any) -> str:
    """One line with the command, the commit, the machine and, in ``more``, settings that are worth knowing."""
    machine = result["machine"]
    facts = [f"`{result['command']}`", f"commit {result['commit']}", machine["cpu"], f"torch {machine['torch']}"]
    return ", ".join([*facts, *(f"{name} {value}" for name, value in more.items())]) + ".\n"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def mean(values: Sequence[float]) -> float:
    """The mean, which is NaN where there are no values."""
    return fmean(values) if values else float("nan")


def error(values: Sequence[float]) -> float:
    """The standard error of the mean, which is 0 for one value."""
    return stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0


def picture(name: str, text: str) -> str:
    """The reference to a picture that ``save`` wrote."""
    return f"![{text}](report/{name}.png)\n"


def pyplot() -> Any:
    """The module matplotlib.pyplot, which the extra ``report`` installs."""
    return import_module("matplotlib.pyplot")


def save(figure: Any, name: str) -> None:
    """Write docs/report/<name>.png, without the date or versions in it, so that equal results give equal files."""
    folder = DOCS / "report"
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    pyplot().close(figure)
