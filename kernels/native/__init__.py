"""The native backend: compiled C++ for the CPU runs residuals and updates as rows (``kernels.row``).

The residual ybar - P (p x + q F) is the row of (ybar, x, F) with a = (1, 0, 0) and b = (0, -p, -q). An update writes
the network's next input in the same pass.

A single op runs a row of a mask, block, channel or banded separable operator. The row of a low-rank separable or a
fourier operator takes two ops, with torch's matrix products or Fourier transforms between them. An operator of another
kind is applied by its own ``project``. Coefficients over the modes of an operator go through its ``down`` and ``lift``
(``over_modes.py``). States are float32, and the network's tensors are float32, bfloat16 or float16.
"""

# Where the library is missing REASON says why, and nothing below it is called.
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from ...operators import AveragePooling, Grayscale, Operator
from ..missing import why_missing
from ..row import Ops, Row, Weighted, outside

try:
    from . import ops
except ModuleNotFoundError:
    REASON: str | None = why_missing("native")
except ImportError as error:
    REASON = f"its library does not load: {error}"
else:
    REASON = None
    from .fourier import Fourier
    from .over_modes import residual_over_modes, update_over_modes
    from .separable import separable_row

__all__ = ["REASON", "RowKernel", "bind", "denoised", "device_table", "name", "normal", "reason", "takes"]

name = "native"
device_table = False

MOST_TERMS = 24
"""The most terms of a row. A register counts once for its numbers, and once more for each tensor of coefficients."""


class RowKernel(Protocol):
    """Computes out = sum_k c_k direct_k T_k + P(sum_k c_k projected_k T_k) and next = c_in out.

    c_k is 1 except at the places in ``scaled``. For these ``scales`` holds a number for every image, (B,), or for every
    element, (C, H, W) or (B, C, H, W) where any dimension may be 1.
    """

    def __call__(
        self,
        out: Tensor,
        after: Tensor | None,
        c_in: float,
        terms: list[Tensor],
        direct: list[float],
        projected: list[float],
        scales: Sequence[Tensor] | None,
        scaled: Sequence[int] | None,
        /,
    ) -> None: ...


_FLOAT = torch.empty(0)  # It gives the dtype and the device of an operator's constants.


def reason(device: torch.device) -> str | None:
    """Why the compiled kernels cannot run on a device, or None where they can."""
    return REASON or (None if device.type == "cpu" else "it runs on the CPU only")


def takes(operator: Operator, row: Row, dtypes: Collection[torch.dtype], elements: int) -> str | None:
    """Why the kernels do not run a row, or None where they do."""
    return outside(row, dtypes, MOST_TERMS, tensors=True)


def bind(operator: Operator) -> Ops:
    """The native operations for one operator. Their buffers between two ops live as long as they do."""
    project = _KERNELS.get(operator.kind, _any_row)(operator)
    modal, modal_residual = partial(update_over_modes, operator), partial(residual_over_modes, operator)

    def residual(
        terms: Sequence[Tensor], p: float, q: float, out: Tensor, weighted: Weighted | None, table: Tensor | None
    ) -> None:
        if not out.numel():
            return
        if weighted is None:
            project(out, None, 1.0, [*terms], [1.0, 0.0, 0.0], [0.0, -p, -q], None, None)
        else:
            modal_residual(terms, p, q, out, weighted)

    def update(
        row: Row, tensors: list[Tensor], out: Tensor, after: Tensor | None, c_in: float, table: Tensor | None = None
    ) -> None:
        if not out.numel():
            return
        if row.modes:
            modal(row, tensors, out, after, c_in)
        elif row.projected:
            project(out, after, c_in, tensors, row.direct, row.projected, row.scales, row.scaled)
        else:
            ops.lincomb(out, after, c_in, tensors, row.direct, row.scales, row.scaled)

    return Ops(denoised, residual, update, normal)


def denoised(x: Tensor, output: Tensor, p: float, q: float) -> Tensor:
    """x0hat = p x + q F, in the dtype of x."""
    out = torch.empty(x.shape)
    ops.lincomb(out, None, 1.0, [x, output], [p, q], None, None)
    return out


def normal(out: Tensor, seeds: Tensor, samples: Tensor, draws: Tensor, step: int) -> Tensor:
    """Fill ``out`` with unit noise: the words of ``reference.normal``, and its normals to within 1e-6."""
    ops.normal(out, seeds, samples, draws, step)
    return out


# ---------------------------------------------------------------------------------------- kernels of the kinds
def _mask_row(operator: Operator) -> RowKernel:
    mask = operator.constant("native range", lambda: (operator.singular_values > 0).to(torch.float64), _FLOAT)
    return partial(ops.mask, mask=mask)


def _block_row(operator: AveragePooling) -> RowKernel:
    width = operator.factor
    height = width if len(operator.shape) == 3 else 1
    return partial(ops.block, height=height, width=width)


def _channel_row(operator: Grayscale) -> RowKernel:
    direction = operator.constant("native direction", lambda: operator.weights / operator.gain, _FLOAT)
    return partial(ops.channel, direction=direction)


def _any_row(operator: Operator) -> RowKernel:
    """The row of an operator that projects by its own ``project``, between two linear combinations."""
    scratch = ops.Scratch()

    def row(out: Tensor, after: Tensor | None, c_in: float, terms: list[Tensor], *numbers: Any) -> None:
        direct, projected, *scaled = numbers
        inner = scratch.like(out)
        ops.lincomb(inner, None, 1.0, terms, projected, *scaled)
        ops.lincomb(out, after, c_in, [*terms, operator.project(inner)], [*direct, 1.0], *scaled)

    return row


_KERNELS: dict[str, Callable[..., RowKernel]] = {"mask": _mask_row, "block": _block_row, "channel": _channel_row}
if REASON is None:
    _KERNELS |= {"separable": separable_row, "fourier": Fourier}
