"""The CUDA C++ backend: residual and update as one row, sum_k a_k T_k + P(sum_k b_k T_k), by kernels of csrc/cuda.

fourier operators and separable ones are projected by kernels that need shared memory laid out by hand; operators of
every other kind are handed to the Triton backend, or where triton is not installed to ``reference``. Float32 only, with
network tensors in float32, bfloat16 or float16; for any other dtype (float64 state, for reference runs) the functions
of ``reference`` are called. Coefficients are read from a table on the device, so that one captured graph serves every
schedule.
"""

from __future__ import annotations

import torch

from ...operators import Operator
from .. import reference, triton
from ..missing import why_missing
from ..native import REASON as NATIVE_REASON
from ..reference import Ops
from ..resources import Resource

__all__ = ["DEVICE_TABLE", "bind", "reason", "resources"]

DEVICE_TABLE = True
"""residual and update take ``table=``, their coefficients on the device; without it they make it themselves."""


def reason(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device, or None."""
    if NATIVE_REASON is not None:
        return NATIVE_REASON
    if not hasattr(torch.ops.ccfast, "cuda_fourier"):
        return why_missing("cuda")
    return None if device.type == "cuda" else "it runs on CUDA devices only"


def bind(operator: Operator) -> Ops:
    """The operations for one operator; buffers that they need between two kernels live as long as they."""
    if operator.kind in ("fourier", "separable"):
        from . import operations

        return operations.bind(operator)
    if triton.reason(torch.device("cuda")) is None:
        return triton.bind(operator)
    return _without_tables(reference.bind(operator))


def _without_tables(ops: Ops) -> Ops:
    """``reference`` takes its coefficients as numbers only."""

    def residual(*arguments, table: torch.Tensor | None = None) -> None:
        ops.residual(*arguments)

    def update(*arguments, table: torch.Tensor | None = None) -> None:
        ops.update(*arguments)

    return ops._replace(residual=residual, update=update)


def resources(architecture: int) -> list[Resource]:
    """What nvcc made of every kernel on an architecture (80, 90, ...) when this library was built; [] without CUDA."""
    from ..._C import kernels

    return [
        Resource("cuda", name, variant, arch, threads, registers, spills, stack, shared, {}, {}, barriers)
        for name, variant, arch, threads, registers, spills, stack, shared, barriers in kernels()
        if arch == architecture
    ]
