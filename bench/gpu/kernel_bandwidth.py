"""The bandwidth of every kernel, by the bytes that it has to move, over that of a copy on the same device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.gpu.clock import on_device
from ccfast import schedules, solvers
from ccfast.app.benchmark.cases import KINDS, LOCAL
from ccfast.app.benchmark.prepared_cases import GateError
from ccfast.denoiser import Denoiser
from ccfast.engine.backends import resolve
from ccfast.engine.bound import number_row, residual_row
from ccfast.engine.plan import Step
from ccfast.kernels import reference
from ccfast.kernels.row import Row
from ccfast.testing import TOLERANCE, relative_error
from ccfast.times import uniform

__all__ = ["Size", "copy_bandwidth", "kernel_records", "sizes"]


class Size(NamedTuple):
    batch: int
    side: int


def sizes(kind: str, full: bool = True) -> list[Size]:
    """The sizes at which a kind is measured; a dry run takes one tiny image."""
    if not full:
        return [Size(1, 32)]
    if kind == "fourier":
        return [Size(8, 256), Size(8, 512), Size(4, 1024)]
    return [Size(8, 512)] if kind in LOCAL else [Size(8, 256), Size(8, 512)]


def copy_bandwidth(device: torch.device, size: int = 1 << 28) -> float:
    """The bytes a second that copying ``size`` floats reads and writes."""
    source = torch.ones(size, device=device)
    target = torch.empty_like(source)
    return 8 * size / on_device(lambda: target.copy_(source), device, count=5)


def kernel_records(device: torch.device, bandwidth: float, full: bool = True) -> Iterator[dict[str, Any]]:
    """A record for each kernel, kind, size and dtype of the network's tensors.

    Raises:
        GateError: a kernel computes a wrong result.
    """
    for kind in KINDS:
        for size in sizes(kind, full):
            for dtype in (torch.float32, torch.bfloat16):
                for op in ("residual", "update"):
                    yield _measure(op, kind, size, dtype, device, bandwidth)
    for size in sizes("mask", full):
        yield _noise(size, device, bandwidth)


def _measure(
    op: str, kind: str, size: Size, dtype: torch.dtype, device: torch.device, bandwidth: float
) -> dict[str, Any]:
    operator = KINDS[kind][1](size.side)
    backend = resolve("auto", device)
    shape, generator = (size.batch, *operator.shape), torch.Generator(device).manual_seed(0)
    row = _row(operator) if op == "update" else residual_row(Step(0.0, 0.0, 1.0, 1.25, -0.75, ()), 1.0)
    tensors = [
        torch.randn(shape, device=device, generator=generator).to(torch.float32 if n in ("x", "ybar") else dtype)
        for n, _ in row.registers
    ]
    out = torch.full(shape, torch.nan, device=device, dtype=torch.float32 if op == "update" else dtype)
    after = torch.empty(shape, device=device, dtype=dtype) if op == "update" and dtype != torch.float32 else None
    exact = [t.double() for t in tensors]
    truth = torch.empty(shape, device=device, dtype=torch.float64)
    reference.bind(operator).update(row, exact, truth, None, 1.0)
    ops, table = backend.bind(operator), None
    if backend.device_table:
        table = torch.tensor(row.values(1.0) if op == "update" else [1.25, -0.75], device=device)

    def run() -> None:
        if op == "update":
            ops.update(row, tensors, out, after, 1.0, table)
        else:
            ops.residual(tensors, 1.25, -0.75, out, None, table)

    record = _timed(run, out, truth, device)
    outputs = [out] if after is None else [out, after]
    moved = sum(t.numel() * t.element_size() for t in (*tensors, *outputs))
    if kind == "fourier":
        moved += _spectra(row, tensors, out)
    where = {
        "op": op,
        "kind": kind,
        "shape": list(shape),
        "dtype": str(dtype).removeprefix("torch."),
        "backend": backend.name,
    }
    return where | record | {"bytes": moved, "of_copy": moved / record["seconds"] / bandwidth}


def _row(operator: Any) -> Row:
    """The second row of ``Conjugate()`` with five steps."""
    schedule = schedules.VP()
    grid = uniform(schedule.default_start, schedule.default_end, 5)
    return number_row(solvers.Conjugate(w=2.0).plan(Denoiser(lambda x, t: x, schedule), operator, grid).steps[1])


def _spectra(row: Row, tensors: Sequence[Tensor], out: Tensor) -> int:
    """The bytes that the three kernels of a transform move besides.

    They write packed planes twice and read them twice, and read those terms twice that stand inside and outside of P.
    """
    pairs = zip(row.direct, row.projected, tensors, strict=True) if row.projected else ()
    again = sum(t.numel() * t.element_size() for a, b, t in pairs if a and b)
    planes = out.shape[1] + out.shape[1] % 2  # A complex plane holds two channels, or the last of an odd number.
    return again + 4 * out.shape[0] * planes * out[0, 0].numel() * 4


def _noise(size: Size, device: torch.device, bandwidth: float) -> dict[str, Any]:
    operator = KINDS["mask"][1](size.side)
    backend = resolve("auto", device)
    shape = (size.batch, *operator.shape)
    words = torch.arange(size.batch, device=device)
    out, ops = torch.full(shape, torch.nan, device=device), backend.bind(operator)
    truth = reference.normal(torch.empty(shape, device=device), words, words, words, 1).double()
    record = _timed(lambda: ops.normal(out, words, words, words, 1), out, truth, device)
    moved = out.numel() * out.element_size()
    where = {"op": "noise", "kind": "any", "shape": list(shape), "dtype": "float32", "backend": backend.name}
    return where | record | {"bytes": moved, "of_copy": moved / record["seconds"] / bandwidth}


def _timed(run: Callable[[], object], out: Tensor, truth: Tensor, device: torch.device) -> dict[str, float]:
    run()
    error, allowed = relative_error(out, truth), 4 * TOLERANCE[out.dtype]
    if not error <= allowed:
        raise GateError(f"kernel: off by {error:.1e}, allowed are {allowed:.1e}")
    return {"error": error, "seconds": on_device(run, device, count=20 if device.type == "cuda" else 1)}
