"""Cases of one operation made ready: their inputs, their result in float64, the bytes that have to move, the rivals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce

import numpy as np
import torch
from torch import Tensor

from ... import schedules, solvers
from ...denoiser import Denoiser
from ...engine.backends import BACKENDS, can_run
from ...engine.bound import number_row
from ...kernels import reference
from ...kernels.row import Backend
from ...operators import Operator
from ...solvers import Solver
from ...testing import TOLERANCE, relative_error
from ...times import uniform
from .cases import Case

__all__ = ["GateError", "PreparedCase", "Run", "prepare", "total", "triad"]

Run = Callable[[], Tensor]
"""Runs an operation once and returns the tensor that holds its result."""


class GateError(RuntimeError):
    """A rival computes something else than the reference in float64, so that its time means nothing."""


@dataclass(frozen=True)
class PreparedCase:
    """The inputs of a case, its result and its rivals.

    Attributes:
        case: the row of the registry.
        tensors: the inputs by name, in the dtypes of the case.
        bytes: the number that any implementation has to read and write.
        bind: makes the run from a backend and the tensor to write to.
        algebra: the operation as a function of (out, tensors) for torch.compile, or None where it cannot be one.
        truth: the result in float64.
        ungated: rivals that are not meant to compute the same values, and so pass no gate.
    """

    case: Case
    tensors: dict[str, Tensor]
    bytes: int
    bind: Callable[[Backend, Tensor], Callable[[], object]]
    algebra: Callable[[Tensor, dict[str, Tensor]], object] | None
    truth: Tensor
    ungated: dict[str, Run] = field(default_factory=dict)

    def rivals(self, compiled: bool) -> dict[str, Run]:
        """The runs by name, each with an output of its own: the backends that can run here, and torch.compile."""
        runs: dict[str, Run] = {}
        for name, backend in BACKENDS.items():
            if can_run(name):
                out = self._output()
                runs["eager" if name == "reference" else name] = partial(_run, self.bind(backend, out), out)
        if compiled and self.algebra is not None:
            runs["compile"] = self._compile(self.algebra)
        return runs

    def _compile(self, algebra: Callable[[Tensor, dict[str, Tensor]], object]) -> Run:
        torch.compiler.reset()  # Without it, the functions of earlier cases count as recompilations, up to a limit.
        out, function = self._output(), torch.compile(algebra, fullgraph=True, dynamic=False)
        return partial(_run, partial(function, out, self.tensors), out)

    def _output(self) -> Tensor:
        dtype = self.case.dtype if self.case.op == "residual" else torch.float32
        return torch.full(self.case.shape, torch.nan, dtype=dtype)

    def check(self, runs: Mapping[str, Run]) -> dict[str, float]:
        """The relative error of each rival.

        Raises:
            GateError: an error is above four times the tolerance of the dtype, which a sum of a few terms is allowed.
        """
        limit = 4 * TOLERANCE[self._output().dtype]
        errors = {name: relative_error(run(), self.truth) for name, run in runs.items()}
        for name, error in errors.items():
            if not error <= limit:
                raise GateError(f"{self.case}: {name} is off by {error:.1e}, allowed are {limit:.1e}")
        return errors


def _run(function: Callable[[], object], out: Tensor) -> Tensor:
    function()
    return out


def triad(moved: int) -> Run:
    """A run of a = b + s c on arrays of such a size that it moves so many bytes: the pace that the memory allows."""
    a, b, c = torch.randn(3, max(1, moved // 12)).unbind()
    return partial(torch.add, b, c, alpha=0.7, out=a)


def prepare(case: Case) -> PreparedCase:
    """Make a case ready, with random inputs that are the same in every process."""
    makers = {"residual": _residual, "noise": _noise}
    with torch.no_grad():
        return makers.get(case.op, _update)(case)


# ------------------------------------------------------------------------------------------------ the operations
def _residual(case: Case) -> PreparedCase:
    operator, p, q = case.operator(), 1.25, -0.75
    tensors = _draw(case, "ybar", "x", "F")

    def bind(backend: Backend, out: Tensor) -> Callable[[], object]:
        return partial(backend.bind(operator).residual, [*tensors.values()], p, q, out, None, None)

    def algebra(out: Tensor, t: dict[str, Tensor]) -> object:
        return out.copy_(t["ybar"] - operator.project(p * t["x"] + q * t["F"]))

    truth = torch.empty(case.shape, dtype=torch.float64)
    reference.bind(operator).residual([t.double() for t in tensors.values()], p, q, truth, None, None)
    moved = _bytes(case, ["x", "F", "ybar", "r"]) + _mask_bytes(operator)
    return PreparedCase(case, tensors, moved, bind, algebra, truth)


def _update(case: Case) -> PreparedCase:
    """A row of a plan. The network's next input is written as well where its dtype is not the state's."""
    operator = case.operator()
    solver: Solver = {
        "update": solvers.Conjugate(),
        "one_projection": solvers.Conjugate(jacobian="one_projection"),
        "lincomb": solvers.DDIM(),
    }[case.op]
    schedule = schedules.VP()
    grid = uniform(schedule.default_start, schedule.default_end, 5)
    row = number_row(solver.plan(Denoiser(lambda x, t: x, schedule), operator, np.asarray(grid)).steps[1])
    names = [register for register, _ in row.registers]
    tensors = _draw(case, *names)
    after = torch.empty(case.shape, dtype=case.dtype) if case.dtype != torch.float32 else None

    def bind(backend: Backend, out: Tensor) -> Callable[[], object]:
        return partial(backend.bind(operator).update, row, [*tensors.values()], out, after, 1.0)

    def algebra(out: Tensor, t: dict[str, Tensor]) -> object:
        x = total([a * t[name].float() for name, a in zip(names, row.direct, strict=True) if a])
        if row.projected:
            inner = [b * t[name].float() for name, b in zip(names, row.projected, strict=True) if b]
            x = x + operator.project(total(inner))
        if after is not None:
            after.copy_(x)
        return out.copy_(x)

    truth = torch.empty(case.shape, dtype=torch.float64)
    reference.bind(operator).update(row, [t.double() for t in tensors.values()], truth, None, 1.0)
    moved = _bytes(case, [*names, "x", *(["input"] if after is not None else [])])
    moved += _mask_bytes(operator) if row.projected else 0
    return PreparedCase(case, tensors, moved, bind, algebra, truth)


def total(terms: Sequence[Tensor]) -> Tensor:
    """The sum of the terms, added one after the other."""
    return reduce(torch.add, terms)


def _noise(case: Case) -> PreparedCase:
    """Gaussian noise. torch's normal_ is a rival that draws other numbers, and others on every kind of device."""
    seeds = reference.seed_words([7] * case.batch, torch.device("cpu"))
    places, draws = torch.arange(case.batch), torch.zeros(case.batch, dtype=torch.int64)

    def bind(backend: Backend, out: Tensor) -> Callable[[], object]:
        operations = backend.bind(case.operator())
        return partial(operations.normal, out, seeds, places, draws, 1)

    truth = reference.normal(torch.empty(case.shape), seeds, places, draws, 1).double()
    rivals: dict[str, Run] = {"torch": torch.empty(case.shape).normal_}
    return PreparedCase(case, {}, _bytes(case, ["x"]), bind, None, truth, rivals)


def _draw(case: Case, *names: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(case.shape, generator=generator).to(_dtype(case, name)) for name in names}


def _dtype(case: Case, name: str) -> torch.dtype:
    return torch.float32 if name in ("x", "ybar", "z") else case.dtype


def _mask_bytes(operator: Operator) -> int:
    """Bytes of the mask, which is read once. They matter only where the images almost fill a cache."""
    return 4 * operator.singular_values.numel() if operator.kind == "mask" else 0


def _bytes(case: Case, names: list[str]) -> int:
    """Bytes of the images named, each counted once."""
    return sum(_dtype(case, name).itemsize for name in names) * int(np.prod(case.shape))
