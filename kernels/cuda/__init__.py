"""The CUDA C++ backend: kernels of csrc/cuda run residuals and updates as rows, sum_k a_k T_k + P(sum_k b_k T_k).

Fourier and separable operators are projected by these kernels, which need shared memory that is laid out by hand.
Operators of every other kind go to the Triton backend, or to ``reference`` where triton is not installed. States are
float32, and the network's tensors are float32, bfloat16 or float16. Coefficients are read from a table on the device,
so that one captured graph serves every schedule.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from ...operators import Operator
from .. import reference, triton
from ..missing import why_missing
from ..native import REASON as NATIVE_REASON
from ..resources import Resource
from ..row import Ops, Row

__all__ = ["bind", "device_table", "name", "reason", "resources", "takes"]

name = "cuda"
device_table = True
OWN = ("fourier", "separable")
"""The kinds of operators for which this backend has kernels."""


def reason(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device, or None where they can."""
    if NATIVE_REASON is not None:
        return NATIVE_REASON
    if not hasattr(torch.ops.ccfast, "cuda_fourier"):
        return why_missing("cuda")
    return None if device.type == "cuda" else "it runs on CUDA devices only"


def takes(operator: Operator, row: Row, dtypes: Collection[torch.dtype], elements: int) -> str | None:
    """Why neither these kernels nor those of Triton run a row, or None where they do."""
    if operator.kind in OWN:
        from . import operations

        return operations.takes(operator, row, dtypes, elements)
    missing = triton.reason(torch.device("cuda"))
    return missing or triton.takes(operator, row, dtypes, elements)


def bind(operator: Operator) -> Ops:
    """The operations for one operator. Their buffers between two kernels live as long as they do."""
    if operator.kind in OWN:
        from . import operations

        return operations.bind(operator)
    return (reference if triton.reason(torch.device("cuda")) else triton).bind(operator)


def resources(architecture: int) -> list[Resource]:
    """What nvcc made of every kernel for an architecture (80, 90, ...) in the build; [] without CUDA code."""
    from ..._C import kernels

    return [
        Resource("cuda", name, variant, arch, threads, registers, spills, stack, shared, {}, {}, barriers)
        for name, variant, arch, threads, registers, spills, stack, shared, barriers in kernels()
        if arch == architecture
    ]
