"""The two pictures of the report in docs/results.md, between markers."""

from __future__ import annotations

from bench.page_block import PageBlock

from .page import DOCS, load
from .section_photographs import gaps

__all__ = ["BLOCK", "render"]

BLOCK = PageBlock("report", "make report")
PICTURES = (
    ("photographs_photo_evaluations_0", "Quality on held-out photographs against network evaluations"),
    ("posterior", "Distance to exact posteriors against network evaluations"),
)
"""The two most telling ones."""


def render() -> str:
    """Those of the pictures that exist."""
    shown = [(name, words) for name, words in PICTURES if (DOCS / "report" / f"{name}.png").exists()]
    lines = "".join(f"![{words}](report/{name}.png)\n\n" for name, words in shown)
    return f"{lines}{verdicts()}More in the [report](report.md).\n"


def verdicts() -> str:
    """On how many tasks the preset is at least as good as the best baseline of each measure."""
    result = load("photographs_photo")
    if result is None:
        return ""
    counts = "".join(
        f"- {steps} evaluations against {rivals}: {gaps(result, steps, rivals).verdict()}\n"
        for steps, rivals in ((5, 5), (20, 20), (5, 20))
    )
    return f"Tasks on which the preset is at least as good as the best baseline of each measure:\n\n{counts}\n"
