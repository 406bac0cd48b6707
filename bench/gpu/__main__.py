"""``make gpu-check``: tests, sanitizers and timings on the CUDA device of this machine, in one report.

The native code must have been built with nvcc, which ``make gpu-check`` does first. The report is written into
bench/results/<device>.json and .md. The exit code is 1 where a test failed, a sanitizer found something, or a contender
computed a wrong result.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.gpu.gpu_targets import judge, page
from bench.gpu.kernel_bandwidth import copy_bandwidth, kernel_records
from bench.gpu.runs import run_records
from bench.runner import RESULTS, ROOT
from ccfast.app.benchmark import environment

__all__ = ["main"]

MINUTES = 8.5
"""The minutes for all of it. The contenders that compile longest come last, and are left out when time is over."""

SECONDS = 150
"""The seconds for all tests, and for each sanitizer; a command that takes longer is ended and counts as failed."""

SANITIZED = "tests/test_gpu.py::test_kernels_for_the_sanitizer"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all of it (default: %(default)s)")
    parser.add_argument(
        "--dry-run", action="store_true", help="tiny sizes on the CPU, without tests: the plumbing alone"
    )
    parser.add_argument("--no-tests", action="store_true", help="timings only")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if not arguments.dry_run and not torch.cuda.is_available():
        print(f"gpu-check: needs a CUDA device, got torch {torch.__version__} without one", file=sys.stderr)
        return 1
    deadline = time.monotonic() + 60 * arguments.minutes
    device = torch.device("cpu" if arguments.dry_run else "cuda:0")
    checks: dict[str, str] = {}
    if not (arguments.dry_run or arguments.no_tests):
        checks = {"tests": run_tests(), **sanitize()}
        print(json.dumps(checks, indent=1), flush=True)
    result = measure(device, deadline, not arguments.dry_run, not arguments.no_compile, checks)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{slug(result['machine']['device'])}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(page(result))
    print("\n".join(map(str, judge(result))))
    print(f"written: {path.name} and {path.with_suffix('.md').name}")
    wrong = [r for r in result["runs"] if r.get("why", "").startswith("GateError")]
    return int(bool(wrong) or any(text.startswith("FAILED") for text in checks.values()))


def run_tests() -> str:
    """Run the tests marked gpu, and return their last line."""
    return _command([sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"])


def sanitize() -> dict[str, str]:
    """Run memcheck and racecheck over the kernels at small sizes, if compute-sanitizer is installed."""
    tool = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if tool is None:
        return {name: "not run: compute-sanitizer is not installed" for name in ("memcheck", "racecheck")}
    test = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", SANITIZED]
    return {
        name: _command([tool, "--tool", name, "--error-exitcode", "9", *test]) for name in ("memcheck", "racecheck")
    }


def _command(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"FAILED: not finished in {SECONDS} s"
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode:
        print("\n".join(lines[-60:]), file=sys.stderr)
        return f"FAILED with {done.returncode}: {lines[-1] if lines else ''}"
    return lines[-1] if lines else "passed"


def measure(
    device: torch.device, deadline: float, full: bool, compiled: bool, checks: dict[str, str]
) -> dict[str, Any]:
    """All figures of a device, as the result that is written."""
    started = datetime.datetime.now(datetime.UTC)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "dry run"
    bandwidth = copy_bandwidth(device, 1 << 28 if full else 1 << 12)
    kernels, runs = [], []
    with torch.no_grad():
        for record in kernel_records(device, bandwidth, full):
            kernels.append(record)
            print(f"{record['op']} {record['kind']} {record['shape']} {record['of_copy']:.0%}", flush=True)
        for record in run_records(device, deadline, full, compiled):
            runs.append(record)
            told = record.get("why") or f"{record['seconds'] * 1e3:.2f} ms"
            print(f"{record['network']} {record['batch']} {record['contender']}: {told}", flush=True)
    return {
        "machine": {**environment.machine(), "device": name, "cuda": torch.version.cuda},
        "commit": environment.commit(ROOT),
        "date": started.isoformat(timespec="seconds"),
        "checks": checks,
        "copy_bandwidth": bandwidth,
        "kernels": kernels,
        "runs": runs,
    }


def slug(name: str) -> str:
    """The name of a device, made fit for the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
