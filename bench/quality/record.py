"""A result file that grows by rows, so that a run may be stopped and started again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ccfast.app.benchmark import environment

__all__ = ["RESULTS", "Record", "rounded"]

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"


class Record:
    """Tables of rows in one JSON file.

    Args:
        path: of the file; read where it is there.
        command: that writes it, kept in the file.
        settings: what all rows share.
        again: forget what is there.

    Raises:
        ValueError: the file was written with other settings (``again`` begins anew).
    """

    def __init__(self, path: Path, command: str, settings: dict[str, Any], again: bool = False) -> None:
        self.path = path
        self.data: dict[str, Any] = {
            "command": command,
            "commit": environment.commit(ROOT),
            "machine": environment.machine(),
            "settings": settings,
        }
        if path.exists() and not again:
            found = json.loads(path.read_text())
            if found["settings"] != settings:
                raise ValueError(f"{path.name}: was written with other settings, {found['settings']}; use --again")
            self.data = found

    def find(self, table: str, **key: Any) -> dict[str, Any] | None:
        """The row of a table with these values, or None."""
        return next((row for row in self.data.get(table, []) if key.items() <= row.items()), None)

    def add(self, table: str, *rows: dict[str, Any]) -> None:
        """Append rows and write the file, one row a line."""
        self.data.setdefault(table, []).extend(rows)
        self.write()

    def write(self) -> None:
        parts = [f" {json.dumps(key)}: {_value(value)}" for key, value in self.data.items()]
        self.path.parent.mkdir(exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("{\n" + ",\n".join(parts) + "\n}\n")
        temporary.replace(self.path)


def _value(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    return "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in value) + "\n ]"


def rounded(values: dict[str, float], digits: int = 4) -> dict[str, float]:
    """Numbers as they are kept: ``digits`` significant digits are enough to plot."""
    return {name: float(f"{value:.{digits}g}") for name, value in values.items()}
