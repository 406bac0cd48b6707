"""The manifest of a folder of results: what was made of what, so that work that was stopped can be resumed.

A line of JSON says for each result the hashes of the source, of the options, and of the result itself. It is brought to
the disk before the result gets its name, so that a result that is there and has the hash of its line is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from .jobs import Job

__all__ = ["NAME", "Line", "Manifest", "file_hash", "options_hash"]

NAME = ".ccfast-manifest.jsonl"


class Line(NamedTuple):
    """The SHA-256 of a result, of its source and of the options."""

    result: str
    source: str
    options: str


class Manifest:
    """The manifests of all folders that results of one command go to.

    Args:
        options: the hash of the options of the command.
    """

    def __init__(self, options: str) -> None:
        self.options = options
        self._lines: dict[Path, dict[str, Line]] = {}

    def knows(self, target: Path) -> bool:
        """Whether a command of ours wrote this file, or was about to."""
        return target.name in self._of(target.parent)

    def is_done(self, job: Job) -> bool:
        """Whether all results of a job are there as they were written, from the same source with the same options."""
        lines = [self._of(target.parent).get(target.name) for target in job.targets]
        if any(line is None or line.options != self.options for line in lines):
            return False
        try:
            source = file_hash(job.source)
            made = [file_hash(target) for target in job.targets]
        except OSError:
            return False
        return all(
            line is not None and line == Line(own, source, self.options) for line, own in zip(lines, made, strict=True)
        )

    def record(self, job: Job, results: list[bytes]) -> None:
        """Write the lines of results that are about to be written, and bring them to the disk."""
        source = file_hash(job.source)
        for target, result in zip(job.targets, results, strict=True):
            line = Line(hashlib.sha256(result).hexdigest(), source, self.options)
            self._of(target.parent)[target.name] = line
            with open(target.parent / NAME, "ab") as file:
                file.write(
                    json.dumps({"name": os.fsencode(target.name).decode("latin-1")} | line._asdict()).encode() + b"\n"
                )
                file.flush()
                os.fsync(file.fileno())

    def _of(self, folder: Path) -> dict[str, Line]:
        if folder not in self._lines:
            self._lines[folder] = _read(folder / NAME)
        return self._lines[folder]


def _read(path: Path) -> dict[str, Line]:
    """The lines by the names of results; the last of a name counts, and one that was cut off does not."""
    lines: dict[str, Line] = {}
    try:
        text = path.read_bytes()
    except OSError:
        return lines
    for row in text.splitlines():
        try:
            entry = json.loads(row)
            name = os.fsdecode(entry["name"].encode("latin-1"))
            lines[name] = Line(entry["result"], entry["source"], entry["options"])
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return lines


def file_hash(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def options_hash(options: dict[str, object], files: list[Path]) -> str:
    """The hash of options, and of the contents of files that they name."""
    contents = [file_hash(path) for path in files]
    return hashlib.sha256(json.dumps([options, contents], sort_keys=True, default=str).encode()).hexdigest()
