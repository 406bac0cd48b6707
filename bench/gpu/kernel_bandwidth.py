"""The bandwidth of every kernel, by the bytes that it has to move, over that of a copy on the same device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.gpu.clock import on_device
from bench.gpu.surroundings import exact_float32
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

__all__ = ["Size", "copy_bandwidth", "kernel_records", "rival_records", "sizes"]


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
    return 8 * size / on_device([lambda: target.copy_(source)], device, count=5).seconds


class Case(NamedTuple):
    """One operation on one size."""

    op: str
    kind: str
    size: Size
    dtype: torch.dtype

    @property
    def words(self) -> dict[str, Any]:
        return {"op": self.op, "kind": self.kind, "dtype": str(self.dtype).removeprefix("torch.")}


def cases(full: bool = True) -> list[Case]:
    """All cases but the noise."""
    return [
        Case(op, kind, size, dtype)
        for kind in KINDS
        for size in sizes(kind, full)
        for dtype in (torch.float32, torch.bfloat16)
        for op in ("residual", "update")
    ]


def kernel_records(device: torch.device, bandwidth: float, full: bool = True) -> Iterator[dict[str, Any]]:
    """A record for each kernel, kind, size and dtype of the network's tensors.

    A kernel is timed cold, on tensors in turn that the cache cannot hold together, and hot, on the same ones again.

    Raises:
        GateError: a kernel computes a wrong result.
    """
    for case in cases(full):
        yield _measure(case, device, bandwidth)
    for size in sizes("mask", full):
        yield _noise(size, device, bandwidth)


def rival_records(device: torch.device, deadline: float, full: bool = True, compiled: bool = True) -> Iterator[Any]:
    """A record for each case and rival: torch itself, and compiled, until a value of ``time.monotonic``.

    Torch itself takes cuFFT for Fourier operators, cuBLAS for the factors of separable ones.
    """
    modes = ("eager", "default", "max-autotune-no-cudagraphs") if compiled else ("eager",)
    for mode in modes:
        for case in cases(full):
            record: dict[str, Any] = {"rival": mode, **case.words, "shape": [case.size.batch, *_operator(case).shape]}
            if time.monotonic() > deadline:
                yield record | {"why": "no time left"}
                continue
            try:
                runs = [_rival(_prepared(case, device, seed), mode) for seed in range(_copies(case, device))]
                timing = on_device(runs, device, count=_count(device))
                yield record | {"seconds": timing.seconds, "spread": timing.spread}
            except Exception as error:  # Whatever a compiler raises leaves out this rival alone.
                yield record | {"why": f"{type(error).__name__}: {str(error)[:200]}"}
        torch.compiler.reset()


class Prepared(NamedTuple):
    """The tensors of a case. ``out`` is what it writes, ``after`` the network's next input."""

    case: Case
    operator: Any
    row: Row
    tensors: list[Tensor]
    out: Tensor
    after: Tensor | None

    @property
    def moved(self) -> int:
        """The bytes that have to be read and written."""
        outputs = [self.out] if self.after is None else [self.out, self.after]
        moved = sum(t.numel() * t.element_size() for t in (*self.tensors, *outputs))
        return moved + (_spectra(self.row, self.tensors, self.out) if self.case.kind == "fourier" else 0)


def _operator(case: Case) -> Any:
    return KINDS[case.kind][1](case.size.side)


def _prepared(case: Case, device: torch.device, seed: int = 0) -> Prepared:
    operator, dtype = _operator(case), case.dtype
    shape, generator = (case.size.batch, *operator.shape), torch.Generator(device).manual_seed(seed)
    update = case.op == "update"
    row = _row(operator) if update else residual_row(Step(0.0, 0.0, 1.0, 1.25, -0.75, ()), 1.0)
    tensors = [
        torch.randn(shape, device=device, generator=generator).to(torch.float32 if n in ("x", "ybar") else dtype)
        for n, _ in row.registers
    ]
    out = torch.full(shape, torch.nan, device=device, dtype=torch.float32 if update else dtype)
    after = torch.empty(shape, device=device, dtype=dtype) if update and dtype != torch.float32 else None
    return Prepared(case, operator, row, tensors, out, after)


def _ours(prepared: Prepared, ops: Any, table: Tensor | None) -> Callable[[], None]:
    tensors, out = prepared.tensors, prepared.out

    def run() -> None:
        if prepared.case.op == "update":
            ops.update(prepared.row, tensors, out, prepared.after, 1.0, table)
        else:
            ops.residual(tensors, 1.25, -0.75, out, None, table)

    return run


def _rival(prepared: Prepared, mode: str) -> Callable[[], None]:
    run = _ours(prepared, reference.bind(prepared.operator), None)
    return run if mode == "eager" else torch.compile(run, mode=mode, dynamic=False)


def _copies(case: Case, device: torch.device) -> int:
    """How many sets of tensors do not fit into the cache together, by a factor of two."""
    if device.type != "cuda":
        return 2
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    elements = case.size.batch * torch.Size(_operator(case).shape).numel()
    return max(2, min(16, 1 + 2 * cache // (elements * 3 * case.dtype.itemsize)))


def _count(device: torch.device) -> int:
    return 48 if device.type == "cuda" else 2  # Divisible by many numbers of copies.


def _measure(case: Case, device: torch.device, bandwidth: float) -> dict[str, Any]:
    backend = resolve("auto", device)
    prepared = _prepared(case, device)
    exact = [t.double() for t in prepared.tensors]
    truth = torch.empty(prepared.out.shape, device=device, dtype=torch.float64)
    reference.bind(prepared.operator).update(prepared.row, exact, truth, None, 1.0)
    del exact
    ops, table = backend.bind(prepared.operator), None
    if backend.device_table:
        values = prepared.row.values(1.0) if case.op == "update" else [1.25, -0.75]
        table = torch.tensor(values, device=device)
    runs = [_ours(prepared, ops, table)]
    error = _gate(runs[0], prepared.out, truth)
    runs += [_ours(_prepared(case, device, seed), ops, table) for seed in range(1, _copies(case, device))]
    where = case.words | {"shape": list(prepared.out.shape), "backend": backend.name, "error": error}
    return where | _timed(runs, prepared.moved, bandwidth, device)


def _timed(runs: Sequence[Callable[[], object]], moved: int, bandwidth: float, device: torch.device) -> dict[str, Any]:
    cold, hot = (on_device(some, device, _count(device)) for some in (runs, runs[:1]))
    return {
        "seconds": cold.seconds,
        "spread": cold.spread,
        "hot_seconds": hot.seconds,
        "copies": len(runs),
        "bytes": moved,
        "of_copy": moved / cold.seconds / bandwidth,
    }


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
    error = _gate(lambda: ops.normal(out, words, words, words, 1), out, truth)
    copies = [out, *(torch.empty_like(out) for _ in range(_copies(Case("noise", "mask", size, out.dtype), device)))]
    runs = [lambda own=own: ops.normal(own, words, words, words, 1) for own in copies]
    where = {"op": "noise", "kind": "any", "shape": list(shape), "dtype": "float32", "backend": backend.name}
    return where | {"error": error} | _timed(runs, out.numel() * out.element_size(), bandwidth, device)


def _gate(run: Callable[[], object], out: Tensor, truth: Tensor) -> float:
    """The relative error of what a run writes to ``out``."""
    with exact_float32():
        run()
    error, allowed = relative_error(out, truth), 4 * TOLERANCE[out.dtype]
    if not error <= allowed:
        raise GateError(f"kernel: off by {error:.1e}, allowed are {allowed:.1e}")
    return error
