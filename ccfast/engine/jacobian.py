"""The product h = (dF/dx)^T r of the network's Jacobian with the residual: the one place that makes it.

"reverse" is automatic differentiation, exact for every network. A true score has a symmetric Jacobian (x0hat is the
gradient of a scalar plus a multiple of x), so that J^T r = J r, which needs no graph of the network:

    "forward"             J r by forward-mode automatic differentiation (dual numbers), exact
    "finite_difference"   (F(x + delta r) - F(x))/delta, delta |r| = |x|/100 for every image, one more evaluation
    "rounded_difference"  the same for a network in bfloat16 or float16, whose rounding it amplifies a hundredfold

Trained networks are only nearly symmetric: ``bench/jacobian_products.py`` measures what that costs, the distance from
reverse mode, quality, seconds and peak resident memory on a bundled prior (``bench/results/products_photo.json``). x
here is the network's scaled input c_in x.

When each is right: "reverse" unless something speaks against it. "finite_difference" where memory is short, or the
network has no gradients (compiled, exported, quantised, inference mode) and computes in float32. "forward" where a
difference is too coarse, or to check one: exact, but slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..kernels.reference import per_image
from .network import Network

__all__ = ["PRODUCTS", "Evaluation", "Product"]

STEP = 1e-2
"""Length of a difference relative to the input: its error is of this order times the curvature of the network."""


DETACHED = (
    "network {!r}: its output must be differentiable with respect to x, but it is detached (no_grad, detach or numpy "
    "inside?); use product='finite_difference', or a solver that takes no derivative, such as "
    "Conjugate(jacobian='none') or DDNM()"
)


class Evaluation(NamedTuple):
    """One evaluation of the network: its input, the times (B,), its output and the residual."""

    leaf: Tensor
    times: Tensor
    output: Tensor
    residual: Tensor


class Product(NamedTuple):
    """A way to take the product.

    Attributes:
        graph: whether the evaluation must be recorded by autograd.
        evaluations: further evaluations of the network in every step.
        scratch: whether it wants a tensor like the input to write to.
        take: h of an evaluation and that tensor.
    """

    graph: bool
    evaluations: int
    scratch: bool
    take: Callable[[Network, Evaluation, Tensor | None], Tensor]


def reverse(network: Network, at: Evaluation, scratch: Tensor | None) -> Tensor:
    """(dF/dx)^T r, or ValueError where the graph from x to F is cut (the product would silently be zero)."""
    gradient = None
    if at.output.requires_grad:
        (gradient,) = torch.autograd.grad(at.output, at.leaf, at.residual, allow_unused=True)
    if gradient is None:
        raise ValueError(DETACHED.format(network.denoiser))
    return gradient


def forward(network: Network, at: Evaluation, scratch: Tensor | None) -> Tensor:
    """(dF/dx) r in forward mode; the network is evaluated once more, with its tangent. ValueError as for reverse."""
    with torch.inference_mode(False), torch.no_grad(), forward_ad.dual_level():
        # inference tensors carry no tangent
        leaf, times, residual = (v.clone() if v.is_inference() else v for v in (at.leaf, at.times, at.residual))
        output = network.eager(forward_ad.make_dual(leaf, residual), times)
        tangent = forward_ad.unpack_dual(output).tangent
    if tangent is None:
        raise ValueError(DETACHED.format(network.denoiser))
    return tangent


def finite_difference(network: Network, at: Evaluation, scratch: Tensor | None) -> Tensor:
    """The difference, or ValueError where the network computes in half precision."""
    low = next((d for d in (network.autocast, at.output.dtype) if d in (torch.float16, torch.bfloat16)), None)
    if low is not None:
        raise ValueError(
            f"product: 'finite_difference' subtracts two outputs of the network, which must not be rounded to {low}; "
            "use another product, no autocast, or 'rounded_difference' to have it all the same"
        )
    return rounded_difference(network, at, scratch)


def rounded_difference(network: Network, at: Evaluation, scratch: Tensor | None) -> Tensor:
    """(F(x + delta r) - F(x))/delta with delta of every image; zero where r is."""
    wide = torch.promote_types(at.output.dtype, torch.float32)
    length, norm = (v.to(wide).flatten(1).norm(dim=1) for v in (at.leaf, at.residual))
    length = STEP * length.where(length > 0, math.sqrt(at.leaf[0].numel()))
    norm = norm.clamp_min(1e-30)  # where r is zero the difference is, and so the product
    at_distance = torch.mul(at.residual, per_image(length / norm, at.leaf), out=scratch).add_(at.leaf)
    changed = network(at_distance, at.times)
    return (changed.to(wide) - at.output.to(wide)).mul_(per_image(norm / length, at.leaf))


PRODUCTS = {
    "reverse": Product(True, 0, False, reverse),
    "forward": Product(False, 1, False, forward),
    "finite_difference": Product(False, 1, True, finite_difference),
    "rounded_difference": Product(False, 1, True, rounded_difference),
}
