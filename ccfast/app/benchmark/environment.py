"""The process that timings are made in, and a description of the machine without anything that identifies it."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import ccfast

from ...kernels import native

__all__ = ["SETTINGS", "commit", "configured", "machine", "run_configured", "threads"]

SETTINGS = {
    # Without these, every tensor above 32 MiB is new memory from the kernel, and page faults are what is measured.
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
    # With one thread, torch compiles in this process, so that its CPU time is not taken for somebody else's.
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}
"""The environment of a process that measures, which malloc reads before the first line of Python runs."""


def configured() -> bool:
    """Whether this process was started with ``SETTINGS``."""
    return all(os.environ.get(name) == value for name, value in SETTINGS.items())


def run_configured(module: str, arguments: Sequence[str]) -> int:
    """Run ``python -m module arguments`` with ``SETTINGS`` and return its exit code."""
    environment = {**os.environ, **SETTINGS}
    code = subprocess.run([sys.executable, "-m", module, *arguments], env=environment, check=False).returncode
    if code < 0:
        print(f"{module}: its process was ended by {signal.Signals(-code).name}; nothing is reported", file=sys.stderr)
        return 128 - code
    return code


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, torch's eager operations, ccfast's kernels and what torch.compile makes use ``count`` threads."""
    import torch._inductor.config as inductor

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with inductor.patch({"cpp.threads": count}):
            yield
    finally:
        torch.set_num_threads(before)


def machine() -> dict[str, Any]:
    """The processor, the memory and the versions of everything that a timing depends on."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ccfast": ccfast.__version__,
        "native": native.REASON or native.ops.build_info(),
    }


def commit(folder: Path) -> str | None:
    """The commit of a checkout, with "+" behind it where files differ from it; None where ``folder`` is no checkout."""
    try:
        head, changes = (
            subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, check=True).stdout
            for command in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.strip() + ("+" if changes.strip() else "")
