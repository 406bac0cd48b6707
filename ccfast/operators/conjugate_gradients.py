"""H+ y from H and H^T alone, by conjugate gradients with a fixed count and per-sample inner products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from .sums import sums

__all__ = ["conjugate_gradients", "damped", "minimum_norm"]

Map = Callable[[Tensor], Tensor]


def conjugate_gradients(forward: Map, adjoint: Map, y: Tensor, iterations: int, tolerance: float) -> Tensor:
    """The solution of H^T H x = H^T y with the smallest norm, H+ y, from x = 0 (CGLS: H^T H is never formed).

    Every sample has its own steps, and stands still from where rounding (or ``tolerance``) leaves it nothing to gain:

        ||r|| <= tolerance ||y||    or    ||H^T r|| <= tolerance ||H|| ||r||,    r = y - H x

    as in LSQR (Paige and Saunders, ACM TOMS 8, 1982), where ||H|| is the largest gain ||H p|| / ||p|| met so far. The
    device decides this, and the host never waits. A sample that is zero stays zero. Squares must not leave the range of
    the dtype: in float32 ||H|| and ||y|| may lie between 1e-6 and 1e6, say.

    Args:
        forward, adjoint: H and H^T on batches.
        y: (B, ...).
        iterations: each takes one H and one H^T.
        tolerance: relative, at least the rounding of the dtype of y is used.
    """
    tolerance = max(tolerance, torch.finfo(y.dtype).eps)
    r, p = y, adjoint(y)
    x = torch.zeros_like(p)
    gamma, target = dot(p, p), tolerance**2 * dot(y, y)
    gain = torch.zeros_like(gamma)
    for _ in range(iterations):
        q = forward(p)
        curvature, left = dot(q, q), dot(r, r)
        gain = torch.maximum(gain, ratio(curvature, dot(p, p)))
        moving = (left > target) & (gamma > tolerance**2 * gain * left)
        step = ratio(gamma, curvature).where(moving, 0.0)
        x = x + each(step, p)
        r = r - each(step, q)
        s = adjoint(r)
        after = dot(s, s)
        p = s + each(ratio(after, gamma), p)
        gamma = after
    return x


def damped(forward: Map, adjoint: Map, b: Tensor, gain: float, iterations: int) -> Tensor:
    """The solution of (1 + gain H^T H) x = b from x = 0, by conjugate gradients with inner products per sample.

    The eigenvalues are at least 1, so that a sample needs no rule to stop, except that a zero residual takes no step.
    """
    x, r, p = torch.zeros_like(b), b, b
    left = dot(r, r)
    for _ in range(iterations):
        q = p + gain * adjoint(forward(p))
        step = ratio(left, dot(p, q))
        x = x + each(step, p)
        r = r - each(step, q)
        after = dot(r, r)
        p = r + each(ratio(after, left), p)
        left = after
    return x


def dot(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> of every sample, (B,)."""
    return sums(a * b)


def each(factor: Tensor, x: Tensor) -> Tensor:
    """Every sample times its own factor (B,)."""
    return factor.reshape(-1, *(1,) * (x.ndim - 1)) * x


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b for b > 0, and 0 for b = 0."""
    return torch.where(b > 0, a / b.where(b > 0, 1.0), 0.0)


class MinimumNorm(torch.autograd.Function):
    """H+ y, whose derivative is (H^T)+, the same iteration with H and H^T exchanged."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, forward: Map, adjoint: Map, iterations: int, tolerance: float) -> Tensor:
        ctx.arguments = (adjoint, forward, iterations, tolerance)
        return conjugate_gradients(forward, adjoint, y, iterations, tolerance)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return minimum_norm(grads[0], *ctx.arguments), None, None, None, None


def minimum_norm(y: Tensor, forward: Map, adjoint: Map, iterations: int, tolerance: float) -> Tensor:
    """H+ y, differentiable in y without keeping the iterates; arguments as ``conjugate_gradients``."""
    return cast(Tensor, MinimumNorm.apply(y, forward, adjoint, iterations, tolerance))
