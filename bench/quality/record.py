"""Result files that grow row by row, so that a run may be stopped and started again."""

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
        path: the file, which is read where it exists.
        command: the command that writes it, which is kept in the file.
        settings: the settings that all rows share.
        again: whether to forget what the file holds.

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
        """The first row of a table that has these values, or None."""
        return next((row for row in self.data.get(table, []) if key.items() <= row.items()), None)

    def add(self, table: str, *rows: dict[str, Any]) -> None:
        """Append rows and write the file, one row a line."""
        self.data.setdefault(table, []).extend(rows)
        self.write()

    def write(self) -> None:
        """Write the file anew; it is replaced at once, so that it is never left half written."""
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
    """The values with ``digits`` significant digits, which are enough to plot them."""
    return {name: float(f"{value:.{digits}g}") for name, value in values.items()}
