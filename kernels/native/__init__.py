"""The native backend of the CPU: residual and update as one row, sum_k c_k a_k T_k + P(sum_k c_k b_k T_k), compiled.

    residual    ybar - P (p x + q F)                           a = (1, 0, 0), b = (0, -p, -q) of (ybar, x, F)
    update      row of a plan: a of the terms T, b of the terms PT; and the network's next input in the same pass

c_k is 1, or a tensor: one coefficient an image or an element (``rich.py``, which also has the fields over modes).

mask, block, channel and banded separable operators take one op each, low-rank separable ones and fourier ones two
passes with torch's matrix products and Fourier transforms between them. An operator of another kind is applied by its
own ``project``. Float32 only, with network tensors in float32, bfloat16 or float16; for any other dtype (float64
state, for reference runs) the functions of ``reference`` are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from ...operators import Operator
from .. import reference
from ..missing import why_missing
from ..reference import Ops

try:
    from . import ops
except ModuleNotFoundError:
    REASON: str | None = why_missing("native")
except ImportError as error:
    REASON = f"its library does not load: {error}"
else:
    REASON = None
    from .fourier import fourier_row
    from .rich import Rich
    from .separable import separable_row

__all__ = ["REASON", "RICH_ROWS", "Row", "bind"]

RICH_ROWS = True
"""Whether ``residual`` takes a weight, and ``update`` tensors among the coefficients and fields, as the reference's."""


class Row(Protocol):
    """out = sum_k c_k direct_k T_k + P(sum_k c_k projected_k T_k) and next = c_in out.

    c_k is 1 but at the places in ``scaled``, where ``scales`` holds one number an image, (B,), or one an element,
    (C, H, W) or (B, C, H, W) with any dimension 1.
    """

    def __call__(
        self,
        out: Tensor,
        after: Tensor | None,
        c_in: float,
        terms: list[Tensor],
        direct: list[float],
        projected: list[float],
        scales: Sequence[Tensor] | None = None,
        scaled: Sequence[int] | None = None,
    ) -> None: ...


_DTYPES = frozenset((torch.float32, torch.bfloat16, torch.float16))
_FLOAT = torch.empty(0)  # names the dtype and device of an operator's constants


def bind(operator: Operator) -> Ops:
    """The native operations for one operator; buffers that they need between two kernels live as long as they."""
    project = _ROWS.get(operator.kind, _any_row)(operator)
    rich = Rich(operator, project) if REASON is None else None

    def residual(
        x: Tensor,
        output: Tensor,
        ybar: Tensor,
        p: float,
        q: float,
        out: Tensor,
        weight: Tensor | None = None,
        coordinates: Tensor | None = None,
    ) -> None:
        if not _fits(x, (output, ybar, out)):
            return reference.residual(operator, x, output, ybar, p, q, out, weight, coordinates)
        if not out.numel():
            return
        if weight is not None and coordinates is not None and rich is not None:
            rich.residual(x, output, ybar, p, q, out, weight, coordinates)
        else:
            project(out, None, 1.0, [ybar, x, output], [1.0, 0.0, 0.0], [0.0, -p, -q])

    def update(
        row: Mapping[str, float | Tensor],
        tensors: Mapping[str, Tensor],
        out: Tensor,
        input_out: Tensor | None,
        c_in: float,
        fields: Mapping[str, Tensor] | None = None,
    ) -> None:
        if fields or Tensor in map(type, row.values()):
            named = [tensors[name.removeprefix("P")] for name in row] + [tensors[name] for name in fields or ()]
            fits = _fits(out, named if input_out is None else (*named, input_out))
            if not fits or rich is None:
                return reference.update(operator, row, tensors, out, input_out, c_in, fields)
            if out.numel():
                rich.update(row, tensors, out, input_out, c_in, fields or {})
            return
        names, direct, projected = _layout(tuple(row.items()))
        terms = [tensors[name] for name in names]
        if not terms or not _fits(out, terms if input_out is None else (*terms, input_out)):
            return reference.update(operator, row, tensors, out, input_out, c_in)
        if not out.numel():
            return
        if projected:
            project(out, input_out, c_in, terms, direct, projected)
        else:
            ops.lincomb(out, input_out, c_in, terms, direct, None, None)

    return Ops(denoised, residual, update, normal)


def denoised(x: Tensor, output: Tensor, p: float, q: float) -> Tensor:
    """x0hat = p x + q F, in the dtype of x."""
    if not _fits(x, (output,)):
        return reference.denoised(x, output, p, q)
    out = torch.empty(x.shape)
    ops.lincomb(out, None, 1.0, [x, output], [p, q], None, None)
    return out


def normal(out: Tensor, seeds: Tensor, samples: Tensor, draws: Tensor, step: int) -> Tensor:
    """Unit noise into ``out``, the stream of ``reference.normal``: equal words, normals within 1e-6."""
    if out.dtype != torch.float32 or not out.is_contiguous():
        return reference.normal(out, seeds, samples, draws, step)
    ops.normal(out, seeds, samples, draws, step)
    return out


def _fits(state: Tensor, others: Sequence[Tensor]) -> bool:
    """Whether the kernels take these dtypes."""
    return state.dtype == torch.float32 and _DTYPES.issuperset([t.dtype for t in others])


@lru_cache(maxsize=1024)
def _layout(row: tuple[tuple[str, float], ...]) -> tuple[list[str], list[float], list[float]]:
    """Names of the tensors of a row and their two coefficients, the second empty where nothing is projected.

    Kept, since making these lists takes as long as the call of an op.
    """
    given = dict(row)
    names = list(dict.fromkeys(name.removeprefix("P") for name in given))
    projects = any(name.startswith("P") for name in given)
    return names, [given.get(n, 0.0) for n in names], [given.get("P" + n, 0.0) for n in names] if projects else []


# ---------------------------------------------------------------------------------------- rows of the kinds
def _mask_row(operator: Operator) -> Row:
    mask = operator.constant("native range", lambda: (operator.singular_values > 0).to(torch.float64), _FLOAT)
    return lambda out, after, c_in, terms, direct, projected, scales=None, scaled=None: ops.mask(
        out, after, c_in, terms, direct, projected, scales, scaled, mask
    )


def _block_row(operator: Operator) -> Row:
    width = operator.factor
    height = width if len(operator.shape) == 3 else 1
    return lambda out, after, c_in, terms, direct, projected, scales=None, scaled=None: ops.block(
        out, after, c_in, terms, direct, projected, scales, scaled, height, width
    )


def _channel_row(operator: Operator) -> Row:
    direction = operator.constant("native direction", lambda: operator.weights / operator.gain, _FLOAT)
    return lambda out, after, c_in, terms, direct, projected, scales=None, scaled=None: ops.channel(
        out, after, c_in, terms, direct, projected, scales, scaled, direction
    )


def _any_row(operator: Operator) -> Row:
    """P by the operator's own ``project``, the sums before and after it fused."""
    scratch = ops.Scratch()

    def row(
        out: Tensor,
        after: Tensor | None,
        c_in: float,
        terms: list[Tensor],
        direct: list[float],
        projected: list[float],
        scales: Sequence[Tensor] | None = None,
        scaled: Sequence[int] | None = None,
    ) -> None:
        inner = scratch.like(out)
        ops.lincomb(inner, None, 1.0, terms, projected, scales, scaled)
        ops.lincomb(out, after, c_in, [*terms, operator.project(inner)], [*direct, 1.0], scales, scaled)

    return row


_ROWS: dict[str, Callable[..., Row]] = {"mask": _mask_row, "block": _block_row, "channel": _channel_row}
if REASON is None:
    _ROWS |= {"separable": separable_row, "fourier": fourier_row}
