"""The README's two pictures of the report, between markers."""

from __future__ import annotations

import re

from .page import DOCS, ROOT

__all__ = ["BEGIN", "END", "fill", "write"]

BEGIN, END = "<!-- report: written by make report -->\n", "<!-- /report -->\n"
PICTURES = (
    ("photographs_photo_evaluations_0", "Quality on held-out photographs against network evaluations"),
    ("posterior", "Distance to exact posteriors against network evaluations"),
)
"""The two most telling ones."""


def fill(text: str) -> str:
    """The text with the pictures that exist between its markers.

    Raises:
        ValueError: the markers are not there once.
    """
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"README: must hold the markers {BEGIN.strip()} and {END.strip()} once")
    shown = [(name, words) for name, words in PICTURES if (DOCS / "report" / f"{name}.png").exists()]
    lines = "".join(f"![{words}](docs/report/{name}.png)\n\n" for name, words in shown)
    return pattern.sub(lambda _: f"{BEGIN}{lines}More in [docs/report.md](docs/report.md).\n{END}", text)


def write() -> bool:
    """Fill the README, if it has the markers."""
    path = ROOT / "README.md"
    text = path.read_text()
    if BEGIN not in text:
        return False
    path.write_text(fill(text))
    return True
