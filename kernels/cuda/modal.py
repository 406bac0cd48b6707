"""Rows with coefficients over the modes as kernels of csrc/cuda take them: sums that are transformed, with factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..device_rows import Scales, scales_of
from ..row import Row, Weighted

__all__ = ["MAX_SETS", "Modal", "modal_of", "modal_scales", "weighted_modal"]

MAX_SETS = 8
"""The most sums of a row that are transformed."""


class Modal(NamedTuple):
    """The sums V f_j V^T of a row.

    Attributes:
        sets: The sum that each of the last terms of the row is part of; they have no numbers in the table.
        factors: The factors f_j of the last sums. The first sum has none where it is that of the projected terms.
        coordinates: The coordinates that are added to those of the first sum, or None.
        sums: The number of sums.
    """

    sets: Sequence[int]
    factors: Sequence[Tensor]
    coordinates: Tensor | None
    sums: int


def modal_of(row: Row) -> Modal:
    """The sums of a row, a term each beside that of the projected terms."""
    first = bool(row.projected)
    sets = [first + j for j in range(len(row.modes))]
    return Modal(sets, [f for f, _ in row.modes], None, first + len(sets))


def modal_scales(row: Row) -> Scales | None:
    """The tensors among all coefficients of a row that are not over the modes."""
    found = scales_of(row)
    tensors, places = (list(found[0]), list(found[1])) if found else ([], [])
    for j, (_, scale) in enumerate(row.modes):
        if scale is not None:
            tensors.append(scale)
            places.append(len(row.direct) + j)
    return Scales(tensors, places) if tensors else None


def weighted_modal(weighted: Weighted) -> Modal:
    """The sum of a weighted residual, V weight (encode(y) + V^T sum)."""
    return Modal((), [weighted.weight], weighted.coordinates, 1)
