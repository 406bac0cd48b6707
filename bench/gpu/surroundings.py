"""What a timing on a GPU depends on beside the code: driver, clocks, temperature, and the precision of float32."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["exact_float32", "precision", "state"]

FIELDS = (
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "temperature.gpu",
    "power.draw",
    "utilization.gpu",
)


def state() -> dict[str, str]:
    """The driver, the clocks and more as nvidia-smi shows them now; empty where it is missing."""
    words = ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(FIELDS, (value.strip() for value in done.stdout.splitlines()[0].split(",")), strict=False))


def precision() -> dict[str, str]:
    """The precision of float32 products and convolutions, which "tf32" rounds. Timings are taken with this setting."""
    return {name: backend.fp32_precision for name, backend in _backends().items()}


@contextmanager
def exact_float32() -> Iterator[None]:
    """A context in which float32 is not rounded to TF32, since gates are tighter than that."""
    before = precision()
    try:
        for backend in _backends().values():
            backend.fp32_precision = "ieee"
        yield
    finally:
        for name, backend in _backends().items():
            backend.fp32_precision = before[name]


def _backends() -> dict[str, Any]:
    return {"products": torch.backends.cuda.matmul, "convolutions": torch.backends.cudnn.conv}  # type: ignore[attr-defined]
