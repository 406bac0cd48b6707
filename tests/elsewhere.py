"""The tests marked ``elsewhere``, as they would run on other processors and with other numbers of threads.

What torch, MKL and OpenMP read of the environment chooses the code that they run, so that one machine stands in for
others. Six runs hold every pair of instruction set and MKL's mode, and of MKL's mode and number of threads:

    ATEN_CPU_CAPABILITY    default, avx2, avx512    the code of torch's own kernels; one that the processor lacks would
                                                    end in an illegal instruction, and is left out with a sentence
    MKL_CBWR               COMPATIBLE, or unset     MKL's code for every processor, or the one that it picks for this
    OMP_NUM_THREADS        1, 2, 4                  also read by tests/conftest.py

The kernels of csrc/cpu choose their instruction set when they are loaded, and run with that one here.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
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
"""Flags of a processor without which torch's code of a name must not run."""


def processor_flags() -> set[str]:
    """As Linux lists them; none on a processor that is not an x86-64 one, where torch has other names for its code."""
    if platform.machine() != "x86_64":
        return set()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return set(next(line for line in lines if line.startswith("flags")).partition(":")[2].split())


def main() -> int:
    """The number of runs that failed."""
    marked = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").glob("test_*.py"))
        if "mark.elsewhere" in path.read_text(encoding="utf-8")
    ]
    flags, failed = processor_flags(), 0
    for capability, mode, threads in RUNS:
        name = f"ATEN_CPU_CAPABILITY={capability} MKL_CBWR={mode or ''} OMP_NUM_THREADS={threads}"
        if missing := NEEDS[capability] - flags:
            print(f"{name}: not run, this processor has no {', '.join(sorted(missing))}", flush=True)
            continue
        environment = {key: value for key, value in os.environ.items() if key != "MKL_CBWR"}
        environment |= {"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": str(threads)}
        environment |= {"MKL_CBWR": mode} if mode else {}
        command = [sys.executable, "-m", "pytest", "-m", "elsewhere", "-p", "no:cacheprovider", *marked, *sys.argv[1:]]
        print(name, flush=True)
        started = time.monotonic()
        code = subprocess.run(command, cwd=ROOT, env=environment).returncode
        print(f"    {'passed' if code == 0 else 'FAILED'} in {time.monotonic() - started:.0f} s", flush=True)
        failed += code != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
