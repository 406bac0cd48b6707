"""``ccfast bench``, the short form of the benchmark, with the machine and the threads that a user has."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from . import cpu_load, environment
from .cases import Case, registry
from .measure import Harness, Record
from .prepared_cases import GateError
from .text_report import text_table, with_share

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="CPU threads (default: torch's choice)")
    parser.add_argument("--side", type=int, default=256, help="of the square images, in pixels (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=11, help="times that each rival is timed (default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="torch.compile as a rival too; takes a minute")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON too")
    parser.add_argument("--busy", action="store_true", help="measure although other processes use the CPU")


def run(arguments: argparse.Namespace) -> int:
    """Measure in another process, which has malloc's settings from its start, and return its exit code."""
    given = ["--side", arguments.side, "--rounds", arguments.rounds]
    given += ["--threads", arguments.threads] if arguments.threads else []
    given += ["--json", arguments.json] if arguments.json else []
    given += ["--compile"] * arguments.compile + ["--busy"] * arguments.busy
    return environment.run_configured("ccfast.app.benchmark", [str(value) for value in given])


def main(argv: Sequence[str] | None = None) -> int:
    """What that process does. The exit code is 1 for a busy machine, a wrong result or a bad argument, otherwise 0."""
    parser = argparse.ArgumentParser(prog="ccfast bench")
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        for name in ("threads", "side", "rounds"):
            value = getattr(arguments, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: must be at least 1, got {value}")
        measure(arguments)
    except (cpu_load.BusyError, GateError, ValueError, OSError) as error:
        print(f"ccfast bench: error: {error}", file=sys.stderr)
        return 1
    return 0


def measure(arguments: argparse.Namespace) -> None:
    """Measure the short registry on one image and print its table; write it as JSON too where a file is given."""
    before = cpu_load.foreign_load() if arguments.busy else cpu_load.refuse_when_busy()
    harness = Harness(rounds=arguments.rounds, compiled=arguments.compile, busy=arguments.busy)
    records: list[Record] = []
    with environment.threads(arguments.threads or torch.get_num_threads()):
        prior = harness.with_prior(Case("step", "banded", side=arguments.side))
        for case in registry(arguments.side, batches=(1,), short=True):
            records.append(with_share(harness.measure(case), prior))
            print(f"{case}: done", file=sys.stderr)
    busy = max([before, prior["load"], *(record["load"] for record in records)])
    machine = environment.machine()
    print(f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}, ccfast {machine['ccfast']}")
    print(text_table(records))
    if busy > cpu_load.LIMIT:
        print(f"other processes used up to {busy:.2f} cores meanwhile: these figures mean little")
    if arguments.json:
        result = {"machine": machine, "load": {"before": before, "during": busy}, "prior": prior, "records": records}
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")
