"""Parts of docs/results.md that are written by commands, between two comments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["PAGE", "Block"]

PAGE = Path(__file__).parent.parent / "docs" / "results.md"


class Block(NamedTuple):
    """``<!-- name: written by command -->`` ... ``<!-- /name -->``, each on a line of its own, once in a text."""

    name: str
    command: str

    @property
    def begin(self) -> str:
        return f"<!-- {self.name}: written by {self.command} -->\n"

    @property
    def end(self) -> str:
        return f"<!-- /{self.name} -->\n"

    def inside(self, text: str) -> str:
        """What stands between the markers.

        Raises:
            ValueError: the markers are not there once.
        """
        found = re.findall(f"{re.escape(self.begin)}(.*?){re.escape(self.end)}", text, re.DOTALL)
        if len(found) != 1:
            raise ValueError(
                f"results.md: must hold the markers {self.begin.strip()} and {self.end.strip()} once, got {len(found)}"
            )
        return found[0]

    def fill(self, text: str, content: str) -> str:
        """The text with the content between the markers."""
        return text.replace(f"{self.begin}{self.inside(text)}{self.end}", f"{self.begin}{content}{self.end}")

    def write(self, content: str) -> None:
        """Fill the page."""
        PAGE.write_text(self.fill(PAGE.read_text(), content))
