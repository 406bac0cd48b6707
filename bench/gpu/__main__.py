"""``make gpu-check``: tests and timings on the CUDA device of this machine, in one report.

The native code must have been built with nvcc, which ``make gpu-check`` does first. The first call (``--part first``)
runs the tests of the GPU and of the CUDA kernels, times the kernels, then whole runs that are not compiled, then
compiled ones, and rivals of the kernels at last. The second one (``--part second``) runs the tests of the Triton
kernels and the sanitizers. The report is written after every record into <device>.json and .md, so that what a time-out
cuts off is all that is lost; a part leaves what the other one has written. Nothing is fetched from anywhere. The exit
code is 1 where a test failed, a sanitizer found something, or a contender computed a wrong result.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.gpu import checks
from bench.gpu.gpu_targets import judge, page
from bench.gpu.kernel_bandwidth import copy_bandwidth, kernel_records, rival_records
from bench.gpu.runs import run_records
from bench.gpu.surroundings import precision, state
from bench.runner import RESULTS, ROOT
from ccfast.app.benchmark import environment
from ccfast.app.benchmark.prepared_cases import GateError

__all__ = ["main"]

MINUTES = 8.5
"""The minutes of one part. The contenders that compile longest come last, and are left out when time is over."""

TESTS = 0.4
"""The part of the time that the tests of the first part may take."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all of it (default: %(default)s)")
    parser.add_argument("--part", choices=("first", "second"), default="first", help="what to run (default: first)")
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
    begun, seconds = time.monotonic(), 60 * arguments.minutes
    deadline, report = begun + seconds, Report(arguments.out, arguments.dry_run)
    if arguments.part == "second":
        found = [*checks.triton_tests(report.logs, deadline)] if arguments.dry_run is False else []
        for name, outcome in found:
            report.check(name, outcome)
        for name, outcome in checks.sanitize(report.logs, deadline):
            report.check(name, outcome)
    else:
        if not (arguments.dry_run or arguments.no_tests):
            for name, outcome in checks.first_tests(report.logs, begun + TESTS * seconds):
                report.check(name, outcome)
        measure(report, deadline, not arguments.dry_run, not arguments.no_compile)
    report.result["after"] = state()
    report.write()
    print("\n".join(map(str, judge(report.result))))
    print(f"written: {report.path.name} and {report.path.with_suffix('.md').name}")
    return int(report.failed)


class Report:
    """The result of a device, which is written after every record.

    Attributes:
        result: All that is known. Both parts write to the same file.
        path: The file.
        logs: The folder of the outputs of tests and sanitizers.
        failed: Whether a check failed or a result was wrong.
    """

    def __init__(self, out: Path, dry: bool) -> None:
        self.device = torch.device("cpu" if dry else "cuda:0")
        name = "dry run" if dry else torch.cuda.get_device_name(self.device)
        self.path, self.logs = out / f"{slug(name)}.json", out / "logs"
        before = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.result: dict[str, Any] = {
            "machine": {**environment.machine(), "device": name, "cuda": torch.version.cuda},
            "commit": environment.commit(ROOT),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "tf32": precision(),
            "before": state(),
            "after": {},
            "checks": before.get("checks", {}),
            "copy_bandwidth": before.get("copy_bandwidth", 0.0),
            **{name: before.get(name, []) for name in LISTS},
        }
        self.failed = False

    def check(self, name: str, outcome: str) -> None:
        """Add the outcome of a test."""
        self.result["checks"][name] = outcome
        self.failed |= outcome.startswith("FAILED")
        print(f"{name}: {outcome}", flush=True)
        self.write()

    def add(self, name: str, record: dict[str, Any]) -> None:
        """Add a record to a list."""
        self.result[name].append(record)
        self.failed |= record.get("why", "").startswith(GateError.__name__)
        print(name, json.dumps(record), flush=True)
        self.write()

    def write(self) -> None:
        """Write the files in place of those before."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for path, text in (
            (self.path, json.dumps(self.result, indent=1) + "\n"),
            (self.path.with_suffix(".md"), page(self.result)),
        ):
            new = path.with_name(path.name + ".new")
            new.write_text(text)
            new.replace(path)  # Whoever is ended between two writes leaves a whole file.


LISTS = ("kernels", "runs", "rivals")


def measure(report: Report, deadline: float, full: bool, compiled: bool) -> None:
    """All figures of a device."""
    device = report.device
    report.result |= {name: [] for name in LISTS}
    bandwidth = report.result["copy_bandwidth"] = copy_bandwidth(device, 1 << 28 if full else 1 << 12)
    with torch.no_grad():
        for name, records in (
            ("kernels", kernel_records(device, bandwidth, full)),
            ("runs", run_records(device, deadline, full, compiled)),
            ("rivals", rival_records(device, deadline, full, compiled)),
        ):
            for record in records:
                report.add(name, record)


def slug(name: str) -> str:
    """The name of a device, made fit for the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
