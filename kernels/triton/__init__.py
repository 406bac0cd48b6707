"""The Triton backend, for CUDA devices: residual and update as one row, sum_k a_k T_k + P(sum_k b_k T_k), and noise.

mask, block and channel operators take one kernel each; any other kind is applied by its own ``project`` between two
kernels. Float32 only, with network tensors in float32, bfloat16 or float16. Coefficients are read from a table on the
device, so that one captured graph serves every schedule. Triton is imported by the first ``bind`` or ``takes``.
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
    """Why the kernels cannot run on a device, or None."""
    if find_spec("triton") is None:
        return "triton is not installed"
    if device.type == "cuda" or (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return None
    return "needs a CUDA device (or TRITON_INTERPRET=1)"


def takes(operator: Operator, row: Row, dtypes: Collection[torch.dtype], elements: int) -> str | None:
    """Why the kernels do not run a row, or None."""
    from . import operations

    return operations.takes(operator, row, dtypes, elements)


def bind(operator: Operator) -> Ops:
    """The operations for one operator; a buffer that they need between two kernels lives as long as they."""
    from . import operations

    return operations.bind(operator)


def resources(architecture: int) -> list[Resource]:
    """What the compiler makes of every kernel on an architecture (80, 90, ...). Needs no GPU.

    Raises:
        ImportError: triton is not installed.
        RuntimeError: its interpreter is on, so that nothing is compiled.
    """
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError("TRITON_INTERPRET: must not be 1 where kernels are compiled, got 1")
    from . import compile

    return compile.resources(list(compile.variants()), architecture)
