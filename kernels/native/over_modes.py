"""Rows with terms V f V^T T, where f is a tensor with a number for every singular value of H.

The coordinates V^T T of small images are computed for all such terms at once. Their sum is lifted once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...operators import Operator
from ..reference import per_image
from ..row import Row, Weighted
from . import ops

__all__ = ["residual_over_modes", "update_over_modes"]

STACKED = 1 << 16
"""The most elements of a batch for which copying all terms into one tensor costs less than the calls that it saves."""


def residual_over_modes(
    operator: Operator, tensors: Sequence[Tensor], p: float, q: float, out: Tensor, weighted: Weighted
) -> None:
    """Write V weight (coordinates - V^T (p x + q F)) to ``out``, as ``reference.residual`` does with a weight."""
    (_, x, output), (weight, coordinates, _) = tensors, weighted
    if operator.kind == "mask":  # The coordinates of a mask are the elements of the image.
        ops.lincomb(out, None, 1.0, [coordinates, x, output], [1.0, -p, -q], [weight] * 3, [0, 1, 2])
        return
    x0hat = torch.empty(x.shape)
    ops.lincomb(x0hat, None, 1.0, [x, output], [p, q], None, None)
    out.copy_(operator.lift((coordinates - operator.down(x0hat)).mul_(weight)))


def update_over_modes(
    operator: Operator, row: Row, tensors: list[Tensor], out: Tensor, after: Tensor | None, c_in: float
) -> None:
    """Run a row of a plan, as ``reference.update`` does."""
    count = len(row.direct)
    plain, given = tensors[:count], tensors[count:]
    for place, (_, scale) in enumerate(row.modes):
        if scale is not None:
            given[place] = given[place] * per_image(scale, out)
    if row.projected:
        given.append(torch.empty(out.shape))
        ops.lincomb(given[-1], None, 1.0, plain, row.projected, row.scales, row.scaled)
    if operator.batch is None and out.numel() <= STACKED:
        parts = operator.down(torch.cat(given).to(torch.float32)).chunk(len(given))
    else:
        parts = [operator.down(t.to(torch.float32)) for t in given]
    total = parts[0] * row.modes[0][0]
    for part, (f, _) in zip(parts[1:], row.modes[1:], strict=False):
        total.addcmul_(part, f)
    if row.projected:
        total.add_(parts[-1])
    terms, numbers = [*plain, operator.lift(total)], [*row.direct, 1.0]
    ops.lincomb(out, after, c_in, terms, numbers, row.scales, row.scaled)
