"""Rows with coefficients over the modes of H: V f V^T T for a tensor f of one number a singular value.

The coordinates of all such terms are taken at once, and their sum is lifted once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..reference import per_image
from ..row import Row
from . import ops

__all__ = ["residual_over_modes", "update_over_modes"]


def residual_over_modes(
    operator: Any, x: Tensor, output: Tensor, p: float, q: float, out: Tensor, weight: Tensor, coordinates: Tensor
) -> None:
    """out = V w (coordinates - V^T (p x + q F)), as ``reference.residual`` with a weight."""
    if operator.kind == "mask":  # the coordinates of a mask are the elements of the image
        ops.lincomb(out, None, 1.0, [coordinates, x, output], [1.0, -p, -q], [weight] * 3, [0, 1, 2])
        return
    x0hat = torch.empty(x.shape)
    ops.lincomb(x0hat, None, 1.0, [x, output], [p, q], None, None)
    out.copy_(operator.lift((coordinates - operator.down(x0hat)).mul_(weight)))


def update_over_modes(
    operator: Any, row: Row, tensors: list[Tensor], out: Tensor, after: Tensor | None, c_in: float
) -> None:
    """A row of a plan, as ``reference.update``."""
    count = len(row.direct)
    plain, stack = tensors[:count], torch.empty(len(row.modes) + bool(row.projected), *out.shape)
    for place, (tensor, (_, scale)) in enumerate(zip(tensors[count:], row.modes, strict=True)):
        stack[place] = tensor if scale is None else tensor * per_image(scale, out)
    if row.projected:
        ops.lincomb(stack[-1], None, 1.0, plain, row.projected, row.scales, row.scaled)
    # all images of the stack are one batch, which only an operator with parts for every image must not see
    if operator.batch is None:
        parts = operator.down(stack.flatten(0, 1)).unflatten(0, stack.shape[:2]).unbind()
    else:
        parts = [operator.down(images) for images in stack]
    total = parts[0] * row.modes[0][0]
    for part, (f, _) in zip(parts[1:], row.modes[1:], strict=False):
        total.addcmul_(part, f)
    if row.projected:
        total.add_(parts[-1])
    terms, numbers = [*plain, operator.lift(total)], [*row.direct, 1.0]
    ops.lincomb(out, after, c_in, terms, numbers, row.scales, row.scaled)
