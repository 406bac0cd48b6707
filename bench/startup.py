"""The time that ``import ccfast`` adds to ``import torch``."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from ccfast.app.benchmark.timing import summary

__all__ = ["import_seconds"]

_CODE = """
import time
start = time.perf_counter()
import torch
middle = time.perf_counter()
import ccfast
print(middle - start, time.perf_counter() - middle)
"""


def import_seconds(runs: int = 7) -> dict[str, Any]:
    """Both times over so many new processes, after one that reads the files into the cache and does not count."""
    pairs = []
    for _ in range(runs + 1):
        done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=True)
        pairs.append([float(value) for value in done.stdout.split()])
    torch_only, added = (list(column) for column in zip(*pairs[1:], strict=True))
    return {"torch": summary(torch_only), "ccfast": summary(added)}
