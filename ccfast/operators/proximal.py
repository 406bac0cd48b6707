"""The proximal step of a measurement: the image near another one that explains it."""

from __future__ import annotations

import torch
from torch import Tensor

from .conjugate_gradients import damped
from .operator import Operator

__all__ = ["proximal"]

ITERATIONS = 30
"""The steps of conjugate gradients, where the operator does not say how many it takes."""


def proximal(operator: Operator, y: Tensor, x: Tensor, penalty: float, explained: Tensor | None = None) -> Tensor:
    """argmin_u ||y - H u||^2 + penalty ||u - x||^2, and its limit x + H+ (y - H x) for a penalty of 0.

    Every mode of H+ y - P x is added with the factor s^2/(s^2 + penalty). An operator without singular values solves
    the normal equations by conjugate gradients.

    Args:
        operator: H.
        y: measurements, (B, *measurement_shape).
        x: images, (B, *shape).
        penalty: >= 0.
        explained: H+ y where it is known, for a penalty of 0.
    """
    if not penalty:
        return x + (operator.pinv(y) if explained is None else explained) - operator.project(x)
    if operator.kind == "krylov":
        right = operator.adjoint(y - operator.forward(x)) / penalty
        count = getattr(operator, "iterations", ITERATIONS)
        return x + damped(operator.forward, operator.adjoint, right, 1.0 / penalty, count)
    s = operator.constant("singular_values", lambda: operator.singular_values, x)
    factor = torch.where(s > 0, s * s / (s * s + penalty), 0.0)
    return x + operator.lift(factor.to(x.dtype) * (operator.encode(y) - operator.down(x)))
