"""The Triton backend for CUDA devices. It runs residuals and updates as rows, sum_k a_k T_k + P(sum_k b_k T_k).

A single kernel runs a row of a mask, block or channel operator. An operator of any other kind is applied by its own
``project`` between two kernels. States are float32, and the network's tensors are float32, bfloat16 or float16.
Coefficients are read from a table on the device, so that one captured graph serves every schedule. The first ``bind``
or ``takes`` imports triton.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from importlib.util import find_spec

import torch

from ...operators import Operator
from ..resources import Resource
from ..row import Ops, Row

__all__ = ["bind", "device_table", "name", "reason", "resources", "takes"]

name = "triton"
device_table = True


def reason(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device, or None where they can."""
    if find_spec("triton") is None:
        return "triton is not installed"
    if device.type == "cuda" or (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return None
    return "needs a CUDA device (or TRITON_INTERPRET=1)"


def takes(operator: Operator, row: Row, dtypes: Collection[torch.dtype], elements: int) -> str | None:
    """Why the kernels do not run a row, or None where they do."""
    from . import operations

    return operations.takes(operator, row, dtypes, elements)


def bind(operator: Operator) -> Ops:
    """The operations for one operator. Their buffer between two kernels lives as long as they do."""
    from . import operations

    return operations.bind(operator)


def resources(architecture: int) -> list[Resource]:
    """What the compiler makes of every kernel for an architecture (80, 90, ...). It needs no GPU.

    Raises:
        ImportError: Triton is not installed.
        RuntimeError: Triton's interpreter is on, so that nothing is compiled.
    """
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError("TRITON_INTERPRET: must not be 1 where kernels are compiled, got 1")
    from . import compile

    return compile.resources(list(compile.variants()), architecture)
