"""The part of docs/results.md that shows two pictures of the report and counts the tasks of the claim."""

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
"""The names and the captions of the two pictures that tell most."""


def render() -> str:
    """Markdown with those of the pictures that exist, and the verdicts."""
    shown = [(name, words) for name, words in PICTURES if (DOCS / "report" / f"{name}.png").exists()]
    lines = "".join(f"![{words}](report/{name}.png)\n\n" for name, words in shown)
    return f"{lines}{verdicts()}More in the [report](report.md).\n"


def verdicts() -> str:
    """A list that says on how many tasks the preset is at least as good as the best baseline of each measure."""
    result = load("photographs_photo")
    if result is None:
        return ""
    counts = "".join(
        f"- {steps} evaluations against {rivals}: {gaps(result, steps, rivals).verdict()}\n"
        for steps, rivals in ((5, 5), (20, 20), (5, 20))
    )
    return f"Tasks on which the preset is at least as good as the best baseline of each measure:\n\n{counts}\n"
