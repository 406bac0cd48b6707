"""The operations of the CUDA backend, and the rows that its kernels take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ...operators import Operator
from .. import reference, triton
from ..device_rows import Layout, RowKernels, Scales, bind_rows
from ..own_transforms import row_by_transforms, weighted_by_transforms
from ..row import Ops, Row, Weighted, outside, refuse_gradients
from . import ops
from .fourier import Fourier
from .modal import MAX_SETS, Modal, modal_of, modal_scales, weighted_modal
from .separable import separable_row

__all__ = ["MAX_TERMS", "ProjectedRow", "bind", "takes"]

MAX_TERMS = 16
"""The most terms of a row."""


class ProjectedRow(Protocol):
    """Runs a row with projected terms, or with coefficients over the modes, on a CUDA stream."""

    def __call__(
        self,
        out: Tensor,
        after: Tensor | None,
        terms: Sequence[Tensor],
        table: Tensor,
        residual: bool,
        scales: Scales | None,
        modal: Modal | None,
        stream: int,
        /,
    ) -> None: ...

    def takes_modes(self, row: Row) -> bool:
        """Whether it runs a row with these coefficients over the modes."""
        ...


_KERNELS: dict[str, Callable[..., ProjectedRow]] = {"fourier": Fourier, "separable": separable_row}


def takes(operator: Operator, row: Row, dtypes: Collection[torch.dtype], elements: int) -> str | None:
    """Why the kernels do not run a row, or None where they do."""
    return outside(row, dtypes, MAX_TERMS, tensors=True)


def bind(operator: Operator) -> Ops:
    """The operations for one operator."""
    run = _KERNELS[operator.kind](operator)
    by_transforms, weighted_residual = row_by_transforms(operator, _combine), weighted_by_transforms(operator, _combine)

    def project(
        out: Tensor,
        after: Tensor | None,
        terms: Sequence[Tensor],
        table: Tensor,
        what: Layout,
        scales: Scales | None,
    ) -> None:
        run(out, after, terms, table, what.residual, scales, None, ops.stream(out.device))

    def over_modes(row: Row, out: Tensor, after: Tensor | None, terms: Sequence[Tensor], table: Tensor) -> None:
        modal = modal_of(row)
        if modal.sums <= MAX_SETS and run.takes_modes(row):
            run(out, after, terms, table, False, modal_scales(row), modal, ops.stream(out.device))
        else:
            by_transforms(row, out, after, terms, table)

    def weighted(out: Tensor, terms: Sequence[Tensor], table: Tensor, given: Weighted) -> None:
        alone = Row([(("x", 0), 1.0, given.weight)], given.spectral)
        if run.takes_modes(alone):
            x, output = terms  # The first term of a residual is not read where coordinates take its place.
            run(out, None, (x, x, output), table, True, None, weighted_modal(given), ops.stream(out.device))
        else:
            weighted_residual(out, terms, table, given)

    # Triton makes the noise, whatever the operator. Without triton torch makes it, equal to within 1e-6.
    normal = triton.bind(operator).normal if triton.reason(torch.device("cuda")) is None else reference.normal
    return bind_rows(RowKernels(_terms, project, _combine, over_modes, weighted), normal)


def _combine(
    out: Tensor,
    after: Tensor | None,
    terms: Sequence[Tensor],
    table: Tensor,
    what: Layout,
    scales: Scales | None,
    field: Tensor | None = None,
) -> None:
    tensors = scales or (None, None)
    if what.direct or not what.projected:
        ops.finish(out, after, terms, table, what.residual, *tensors, field, ops.stream(out.device))
    else:
        ops.combine(out, terms, table, what.residual, *tensors, ops.stream(out.device))


def _terms(tensors: Sequence[Tensor], out: Tensor, after: Tensor | None) -> Sequence[Tensor]:
    refuse_gradients("cuda", (*tensors, out))
    return tensors
