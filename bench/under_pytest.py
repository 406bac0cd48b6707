"""``make bench``: test_speed.py under pytest-benchmark, in a process that has malloc's settings from its start."""

from __future__ import annotations

import sys
from pathlib import Path

from ccfast.app.benchmark.environment import run_configured

if __name__ == "__main__":
    sys.exit(run_configured("pytest", [str(Path(__file__).parent), *sys.argv[1:]]))
