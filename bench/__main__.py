"""``python -m bench``: measure, write bench/results/NAME.json and NAME.md, and print the table and the targets met.

``make figures`` runs it with --page, which also writes the table of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from bench import speed_table, speed_targets
from bench.runner import RESULTS, everything, run_all
from ccfast.app.benchmark import environment
from ccfast.app.benchmark.cpu_load import BusyError
from ccfast.app.benchmark.prepared_cases import GateError
from ccfast.app.benchmark.text_report import text_table


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure, and write bench/results/NAME.json.")
    parser.add_argument("--name", default=speed_table.NAME, help="of the result (default: %(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="(default: 1 2)")
    parser.add_argument("--rounds", type=int, default=21, help="times that each rival is timed (default: %(default)s)")
    parser.add_argument("--only", metavar="TEXT", help="cases whose name holds it")
    parser.add_argument("--short", action="store_true", help="one image only, fewer cases")
    parser.add_argument(
        "--no-compile", action="store_true", help="leave torch.compile out, which takes most of the time"
    )
    parser.add_argument("--busy", action="store_true", help="measure although others use the CPU; the result says so")
    parser.add_argument("--page", action="store_true", help="write the table of docs/results.md from the result")
    arguments = parser.parse_args(argv)
    if not environment.configured():
        return environment.run_configured("bench", argv)
    cases = [case for case in everything(arguments.short) if (arguments.only or "") in str(case)]
    if not cases:
        parser.error(f"--only: must be part of the name of a case, got {arguments.only!r}")
    try:
        result = run_all(cases, arguments.threads, arguments.rounds, not arguments.no_compile, arguments.busy)
    except (BusyError, GateError) as error:
        print(f"bench: error: {error}", file=sys.stderr)
        return 1
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{arguments.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / f"{arguments.name}.md").write_text(speed_table.full_page(result))
    print(text_table(result["records"]))
    print("\n".join(["", *map(str, speed_targets.judge(result))]))
    if result["load"]["busy"]:
        print(f"\nbusy: other processes used up to {result['load']['during']:.2f} cores; these figures mean little")
    if arguments.page:
        speed_table.write(result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
