"""The parts of docs/results.md that commands write, each between two comments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["PAGE", "PageBlock"]

PAGE = Path(__file__).parent.parent / "docs" / "results.md"


class PageBlock(NamedTuple):
    """A part of a page, between ``<!-- name: written by command -->`` and ``<!-- /name -->``, each on its own line."""

    name: str
    command: str

    @property
    def begin(self) -> str:
        return f"<!-- {self.name}: written by {self.command} -->\n"

    @property
    def end(self) -> str:
        return f"<!-- /{self.name} -->\n"

    def inside(self, text: str) -> str:
        """What stands between the two comments.

        Raises:
            ValueError: the text does not hold each of them once.
        """
        found = re.findall(f"{re.escape(self.begin)}(.*?){re.escape(self.end)}", text, re.DOTALL)
        if len(found) != 1:
            raise ValueError(
                f"results.md: must hold the comments {self.begin.strip()} and {self.end.strip()} once, got {len(found)}"
            )
        return found[0]

    def fill(self, text: str, content: str) -> str:
        """The text with ``content`` between the two comments."""
        return text.replace(f"{self.begin}{self.inside(text)}{self.end}", f"{self.begin}{content}{self.end}")

    def write(self, content: str) -> None:
        """Put ``content`` between the two comments of docs/results.md."""
        PAGE.write_text(self.fill(PAGE.read_text(), content))
