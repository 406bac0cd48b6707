"""The Triton backend, for CUDA devices: residual and update as one row, sum_k a_k T_k + P(sum_k b_k T_k), and noise.

mask, block and channel operators take one kernel each; any other kind is applied by its own ``project`` between two
kernels. Float32 only, with network tensors in float32, bfloat16 or float16; for any other dtype (float64 state, for
reference runs) the functions of ``reference`` are called. Coefficients are read from a table on the device, so that one
captured graph serves every schedule. Triton is imported by the first ``bind``.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch

from ...operators import Operator
from ..reference import Ops
from ..resources import Resource

__all__ = ["DEVICE_TABLE", "bind", "reason", "resources"]

DEVICE_TABLE = True
"""residual and update take ``table=``, their coefficients on the device; without it they make it themselves."""


def reason(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device, or None."""
    if find_spec("triton") is None:
        return "triton is not installed"
    if device.type == "cuda" or (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return None
    return "needs a CUDA device (or TRITON_INTERPRET=1)"


def bind(operator: Operator) -> Ops:
    """The operations for one operator; a buffer that they need between two kernels lives as long as they."""
    from . import operations

    return operations.bind(operator)


def resources(architecture: int) -> list[Resource]:
    """What the compiler makes of every kernel on an architecture (80, 90, ...). Needs no GPU, takes about a minute."""
    from . import compile

    return [compile.resource(variant, architecture) for variant in compile.variants()]
