"""The section on kernels: their speed against the memory's bandwidth, and their share of a step."""

from __future__ import annotations

from typing import Any

from bench import speed_table
from ccfast.app.benchmark.text_report import ratio

from .page import Result, load, missing, picture, pyplot, save

__all__ = ["roofline", "section", "shares"]

COMMAND = "python -m bench --page"


def section() -> str:
    result = load("cpu")
    if result is None:
        return missing(COMMAND)
    save(roofline(result), "roofline")
    save(shares(result), "share")
    return "\n".join(
        [
            speed_table.render(result),
            "Time of moving a kernel's bytes at the bandwidth of a triad in the same run, over the kernel's time: "
            "100 % is the roof of a memory-bound kernel, more than that fits the cache.\n",
            picture("roofline", "Kernels against the memory's bandwidth"),
            "Share of a step (with its network, forward and Jacobian product) that the kernels take:\n",
            picture("share", "Share of a step"),
        ]
    )


def rows(result: Result) -> list[Result]:
    """The records of one image in float32."""
    return [r for r in result["records"] if r["shape"][0] == 1 and r["dtype"] == "float32" and r["op"] != "plan"]


def roofline(result: Result) -> Any:
    """A bar plot of each kernel's share of the memory's bandwidth."""
    bars = [(f"{r['op']}, {r['operator']}", 100 * value) for r in rows(result) if (value := ratio(r, "triad"))]
    return barplot(bars, "% of the triad's bandwidth", line=100.0)


def shares(result: Result) -> Any:
    """A bar plot of each kernel's share of a step."""
    bars = [(f"{r['op']}, {r['operator']}", 100 * r["share"]) for r in rows(result) if r.get("share") is not None]
    return barplot(bars, "% of a step")


def barplot(bars: list[tuple[str, float]], label: str, line: float | None = None) -> Any:
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(8, 0.28 * len(bars) + 0.8))
    drawn = axis.barh([name for name, _ in bars], [value for _, value in bars], color="tab:blue")
    axis.bar_label(drawn, fmt="%.3g", fontsize=7, padding=2)
    if line is not None:
        axis.axvline(line, color="grey", linewidth=1)
    axis.invert_yaxis()
    axis.tick_params(labelsize=8)
    axis.set_xlabel(label, fontsize=9)
    axis.grid(axis="x", alpha=0.3)
    return figure
