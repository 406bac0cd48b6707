"""The operations of the Triton backend, and the choice of the kernel that runs a row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from ...operators import AveragePooling, Grayscale, Operator
from ..device_rows import RESIDUAL, Layout, RowKernel, RowKernels, Scales, bind_rows
from ..own_transforms import row_by_transforms, weighted_by_transforms
from ..row import Ops, Row, Weighted, outside, refuse_gradients
from . import noise
from .block import LARGEST, block
from .channel import channel
from .lincomb import lincomb
from .mask import mask

__all__ = ["bind", "normal", "takes"]

MAX_TERMS = 16
"""The most terms of a row."""

MAX_ELEMENTS = 2**31 - 2**20
"""The most elements of a batch. Offsets are int32, and those of the last programs reach past the end of a batch."""


def takes(operator: Operator, row: Row, dtypes: Collection[torch.dtype], elements: int) -> str | None:
    """Why the kernels do not run a row, or None where they do."""
    if elements > MAX_ELEMENTS:
        return f"its kernels take {MAX_ELEMENTS} elements, and there are {elements}"
    return outside(row, dtypes, MAX_TERMS, tensors=True)


def bind(operator: Operator) -> Ops:
    """The operations for one operator."""
    run = _KERNELS.get(operator.kind, _any_row)(operator)
    weighted = _weighted_mask if operator.kind == "mask" else weighted_by_transforms(operator, _combine)
    return bind_rows(RowKernels(_terms, run, _combine, row_by_transforms(operator, _combine), weighted), normal)


def normal(out: Tensor, seeds: Tensor, samples: Tensor, draws: Tensor, step: int) -> Tensor:
    """Fill ``out`` with unit noise: the words of ``reference.normal``, and its normals to within 1e-6."""
    if out.dtype != torch.float32 or not out.is_contiguous():
        raise ValueError(f"out: must be contiguous and float32, got {out.dtype} with strides {out.stride()}")
    if out.numel():
        noise.normal(out, seeds, samples, draws, step).run()
    return out


def _combine(
    out: Tensor,
    following: Tensor | None,
    terms: Sequence[Tensor],
    table: Tensor,
    what: Layout,
    scales: Scales | None,
    field: Tensor | None = None,
) -> None:
    lincomb(out, following, terms, table, what, scales, field).run()


def _weighted_mask(out: Tensor, terms: Sequence[Tensor], table: Tensor, weighted: Weighted) -> None:
    """The coordinates of a mask are the elements of the image, so that a weight is a coefficient of each element."""
    weight, coordinates, _ = weighted
    tensors = (coordinates.contiguous(), *terms)
    lincomb(out, None, tensors, table, RESIDUAL, Scales([weight] * 3, range(3))).run()


def _terms(terms: Sequence[Tensor], out: Tensor, after: Tensor | None) -> tuple[Tensor, ...]:
    """The terms in the memory order of the state, into which those of a channels_last network are copied.

    Raises:
        RuntimeError: A tensor requires grad.
        ValueError: A kernel would read or write past the end of a tensor.
    """
    refuse_gradients("triton", (*terms, out))
    for name, tensor in (("out", out), ("after", after)):
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(f"{name}: must be contiguous, got shape {tuple(tensor.shape)}, strides {tensor.stride()}")
    for term in terms:
        if term.shape != out.shape:
            raise ValueError(f"terms: must have the shape {tuple(out.shape)} of out, got {tuple(term.shape)}")
    return tuple(term.contiguous() for term in terms)


# ---------------------------------------------------------------------------------------- rows of the kinds
def _mask_row(operator: Operator) -> RowKernel:
    def run(
        out: Tensor,
        following: Tensor | None,
        terms: Sequence[Tensor],
        table: Tensor,
        what: Layout,
        scales: Scales | None,
    ) -> None:
        # The mask takes one byte for every element, since ``constant`` keeps dtypes that are not floating.
        kept = operator.constant("triton range", lambda: (operator.singular_values > 0).to(torch.uint8), out)
        mask(out, following, terms, table, what, scales, kept).run()

    return run


def _block_row(operator: AveragePooling) -> RowKernel:
    factor = operator.factor
    if factor > LARGEST:
        return _any_row(operator)
    rows = factor if len(operator.shape) == 3 else 1

    def run(
        out: Tensor,
        following: Tensor | None,
        terms: Sequence[Tensor],
        table: Tensor,
        what: Layout,
        scales: Scales | None,
    ) -> None:
        block(out, following, terms, table, what, scales, rows, factor).run()

    return run


def _channel_row(operator: Grayscale) -> RowKernel:
    def run(
        out: Tensor,
        following: Tensor | None,
        terms: Sequence[Tensor],
        table: Tensor,
        what: Layout,
        scales: Scales | None,
    ) -> None:
        direction = operator.constant("triton direction", lambda: operator.weights / operator.gain, out)
        channel(out, following, terms, table, what, scales, direction).run()

    return run


def _any_row(operator: Operator) -> RowKernel:
    """The row of an operator that projects by its own ``project``, between two linear combinations."""
    inner: Tensor | None = None

    def run(
        out: Tensor,
        following: Tensor | None,
        terms: Sequence[Tensor],
        table: Tensor,
        what: Layout,
        scales: Scales | None,
    ) -> None:
        nonlocal inner
        if inner is None or inner.shape != out.shape or inner.device != out.device:
            inner = torch.empty_like(out, dtype=torch.float32)
        lincomb(inner, None, terms, table, what._replace(direct=0), scales).run()
        projected = operator.project(inner).contiguous()
        lincomb(out, following, terms, table, what._replace(projected=0), scales, projected).run()

    return run


_KERNELS: dict[str, Callable[..., RowKernel]] = {"mask": _mask_row, "block": _block_row, "channel": _channel_row}
