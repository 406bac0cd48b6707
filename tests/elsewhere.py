"""The tests marked ``elsewhere``, as they would run on other processors and with other numbers of threads.

What torch, MKL and OpenMP read of the environment chooses the code that they run, so that one machine stands in for
others. Six runs hold every pair of instruction set and MKL's mode, and of MKL's mode and number of threads:

    ATEN_CPU_CAPABILITY    default, avx2, avx512    the code of torch's own kernels; one that the processor lacks would
                                                    end in an illegal instruction, and is left out with a sentence
    MKL_CBWR               COMPATIBLE, or unset     MKL's code for every processor, or the one that it picks for this
    OMP_NUM_THREADS        1, 2, 4                  also read by tests/conftest.py

The kernels of csrc/cpu choose their instruction set by the processor when they are loaded, whatever these variables
say. Two runs go on at a time. Their threads sleep while they wait for each other (OMP_WAIT_POLICY), because there may
be more threads than cores.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = [
    ("default", "COMPATIBLE", 4),
    ("default", None, 2),
    ("avx2", "COMPATIBLE", 1),
    ("avx2", None, 4),
    ("avx512", "COMPATIBLE", 2),
    ("avx512", None, 1),
]
NEEDS = {"default": set(), "avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"}}
"""The processor's flags that torch's code of each name needs."""


def processor_flags() -> set[str]:
    """The processor's flags as Linux lists them; the empty set where the processor is not an x86-64 one."""
    if platform.machine() != "x86_64":
        return set()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return set(next(line for line in lines if line.startswith("flags")).partition(":")[2].split())


def run(command: list[str], capability: str, mode: str | None, threads: int) -> bool:
    """Run the command in that environment, print whether it passes (and its output if it does not), and return that."""
    name = f"ATEN_CPU_CAPABILITY={capability} MKL_CBWR={mode or '(unset)'} OMP_NUM_THREADS={threads}"
    environment = {key: value for key, value in os.environ.items() if key != "MKL_CBWR"}
    environment |= {"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    environment |= {"MKL_CBWR": mode} if mode else {}
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    text = done.stdout + done.stderr if done.returncode else f"    {lines[-1]}" if lines else ""
    what = "passed" if done.returncode == 0 else "FAILED"
    print(f"{name}: {what} after {time.monotonic() - started:.0f} s\n{text}", flush=True)
    return done.returncode == 0


def main() -> int:
    """Run all of them and return the number that failed."""
    marked = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").glob("test_*.py"))
        if "mark.elsewhere" in path.read_text(encoding="utf-8")
    ]
    options = ["-m", "elsewhere", "-p", "no:cacheprovider", "--disable-warnings"]
    command = [sys.executable, "-m", "pytest", *options, *marked, *sys.argv[1:]]
    flags, possible = processor_flags(), []
    for capability, mode, threads in RUNS:
        if missing := NEEDS[capability] - flags:
            print(f"{capability}, {threads} threads: not run, this processor has no {', '.join(sorted(missing))}")
        else:
            possible.append((capability, mode, threads))
    with ThreadPoolExecutor(2) as pool:
        passed = list(pool.map(lambda settings: run(command, *settings), possible))
    return len(passed) - sum(passed)


if __name__ == "__main__":
    sys.exit(main())
