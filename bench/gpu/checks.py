"""Tests and sanitizers as commands, whose output is kept also where they take too long."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.runner import ROOT

__all__ = ["TOOLS", "command", "first_tests", "sanitize", "triton_tests"]

TOOLS = ("memcheck", "racecheck", "initcheck")
"""The tools of compute-sanitizer: accesses out of bounds, races in shared memory, memory that is read unwritten."""

UNCACHED = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
"""The setting with which every tensor has an allocation of its own. A small overrun of a cached block is unseen."""

SANITIZED = "tests/test_gpu.py::test_kernels_for_the_sanitizer"

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def first_tests(folder: Path, deadline: float) -> Iterator[tuple[str, str]]:
    """The tests of the GPU and of the CUDA kernels: the name and the outcome of each."""
    yield "test_gpu", command([*PYTEST, "-m", "gpu", "tests/test_gpu.py"], folder / "test_gpu.log", deadline)
    yield "test_cuda", command([*PYTEST, "tests/test_cuda.py"], folder / "test_cuda.log", deadline)


def triton_tests(folder: Path, deadline: float) -> Iterator[tuple[str, str]]:
    """The tests of the Triton kernels, in as many processes as pytest-xdist can start."""
    try:
        import xdist  # noqa: F401

        workers = ("-n", str(min(8, os.cpu_count() or 1)))
    except ImportError:
        workers = ()
    words = [*PYTEST, *workers, "tests/test_triton.py", "tests/test_triton_compile.py"]
    yield "test_triton", command(words, folder / "test_triton.log", deadline)


def sanitize(folder: Path, deadline: float) -> Iterator[tuple[str, str]]:
    """Every tool over the kernels at small sizes, if compute-sanitizer is installed."""
    tool = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    for name in TOOLS:
        if tool is None:
            yield name, "not run: compute-sanitizer is not installed"
            continue
        words = [tool, "--tool", name, "--error-exitcode", "9", *PYTEST, "-m", "gpu", SANITIZED]
        yield name, command(words, folder / f"{name}.log", deadline, UNCACHED)


def command(words: Sequence[str], log: Path, deadline: float, variables: Mapping[str, str] | None = None) -> str:
    """Run a command until a value of ``time.monotonic`` at most, and return its last line. Its output is in ``log``."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        return "not run: no time left"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        try:
            environment = os.environ | (variables or {})
            done = subprocess.run(
                words, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, check=False, timeout=seconds
            )
            failed = f"FAILED with {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            failed = f"FAILED: not finished in {seconds:.0f} s"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if failed:
        print("\n".join(lines[-60:]), file=sys.stderr)
        return f"{failed}: {last}"
    return last or "passed"
