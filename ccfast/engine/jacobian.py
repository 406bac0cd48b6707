"""The product h = (dF/dx)^T r of the network's Jacobian with the residual, which is made here and nowhere else.

"reverse" is automatic differentiation in reverse mode, which is exact for every network. A true score has a symmetric
Jacobian (x0hat is the gradient of a scalar plus a multiple of x), so that J^T r = J r. Ways to J r need no graph of the
network:

    "forward"             J r by forward-mode automatic differentiation (dual numbers), exact
    "finite_difference"   (F(x + delta r) - F(x))/delta, delta |r| = |x|/100 for every image, one more evaluation
    "rounded_difference"  the same for a network in bfloat16 or float16, whose rounding it amplifies a hundredfold

Trained networks are only nearly symmetric: ``bench/jacobian_products.py`` measures what that costs, the distance from
reverse mode, quality, seconds and peak resident memory on a bundled prior
(``bench/results/jacobian_products_photo.json``). x here is the network's scaled input c_in x.

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
from .network import NetworkRun

__all__ = ["PRODUCTS", "Product"]

STEP = 1e-2
"""The length of a difference relative to the input. Its error is of this order, times the curvature of the network."""


DETACHED = (
    "network {!r}: its output must be differentiable with respect to x, but it is detached (no_grad, detach or numpy "
    "inside?); use product='finite_difference', or a solver that takes no derivative, such as "
    "Conjugate(jacobian='none') or DDNM()"
)

REENTRANT = (
    "network {!r}: its reentrant activation checkpointing forbids derivatives with respect to its input alone; use "
    "torch.utils.checkpoint with use_reentrant=False, or product='finite_difference', or a solver that takes no "
    "derivative, such as Conjugate(jacobian='none') or DDNM()"
)

CHANGED = (
    "network {!r}: its weights were changed in place while a derivative was taken, by training in another thread "
    "perhaps; restore with a copy of the network, such as its moving average"
)


class Product(NamedTuple):
    """A way to take the product.

    Attributes:
        graph: Whether autograd must record the evaluation of the network.
        evaluations: The number of further evaluations of the network in every step.
        scratch: Whether ``take`` writes to a scratch tensor like the input.
        take: The function that returns h. It is called with the network, its input, the times (B,), the output, the
            residual and the scratch tensor.
    """

    graph: bool
    evaluations: int
    scratch: bool
    take: Callable[[NetworkRun, Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor]


def reverse(
    network: NetworkRun, leaf: Tensor, times: Tensor, output: Tensor, r: Tensor, scratch: Tensor | None
) -> Tensor:
    """(dF/dx)^T r in reverse mode. No derivative with respect to the weights of the network is taken.

    Raises:
        ValueError: The graph from x to F is cut, so that the product would silently be zero.
    """
    gradient = None
    if output.requires_grad:
        try:
            (gradient,) = torch.autograd.grad(output, leaf, r, allow_unused=True)
        except RuntimeError as error:
            text = str(error)
            if "reentrant" in text:
                raise RuntimeError(REENTRANT.format(network.denoiser)) from error
            if "modified by an inplace operation" in text:
                raise RuntimeError(CHANGED.format(network.denoiser)) from error
            raise
    if gradient is None:
        raise ValueError(DETACHED.format(network.denoiser))
    return gradient


def forward(
    network: NetworkRun, leaf: Tensor, times: Tensor, output: Tensor, r: Tensor, scratch: Tensor | None
) -> Tensor:
    """(dF/dx) r in forward mode, for which the network is evaluated once more with a tangent.

    Raises:
        ValueError: The output has no tangent, so that the product would silently be zero.
    """
    with forward_ad.dual_level():
        # The network may overwrite its input, and the tangent with it.
        output = network.eager(forward_ad.make_dual(leaf.clone(), r.clone()), times)
        tangent = forward_ad.unpack_dual(output).tangent
    if tangent is None:
        raise ValueError(DETACHED.format(network.denoiser))
    return tangent.detach()


def finite_difference(
    network: NetworkRun, leaf: Tensor, times: Tensor, output: Tensor, r: Tensor, scratch: Tensor | None
) -> Tensor:
    """(F(x + delta r) - F(x))/delta for a network that computes in float32 or wider.

    Raises:
        ValueError: The network computes in half precision.
    """
    low = next((d for d in (network.autocast, output.dtype) if d in (torch.float16, torch.bfloat16)), None)
    if low is not None:
        raise ValueError(
            f"product: 'finite_difference' subtracts two outputs of the network, which must not be rounded to {low}; "
            "use another product, no autocast, or 'rounded_difference' to have it all the same"
        )
    return rounded_difference(network, leaf, times, output, r, scratch)


def rounded_difference(
    network: NetworkRun, leaf: Tensor, times: Tensor, output: Tensor, r: Tensor, scratch: Tensor | None
) -> Tensor:
    """(F(x + delta r) - F(x))/delta in any precision, with a delta for every image; zero for an r of zeros."""
    wide = torch.promote_types(output.dtype, torch.float32)
    length, norm = (v.to(wide).flatten(1).norm(dim=1) for v in (leaf, r))
    length = STEP * length.where(length > 0, math.sqrt(leaf[0].numel()))
    norm = norm.clamp_min(1e-30)  # An r of zeros makes a difference of zero, whatever it is divided by.
    at_distance = torch.mul(r, per_image(length / norm, leaf), out=scratch).add_(leaf)
    changed = network(at_distance, times)
    return (changed.to(wide) - output.to(wide)).mul_(per_image(norm / length, leaf))


PRODUCTS = {
    "reverse": Product(True, 0, False, reverse),
    "forward": Product(False, 1, False, forward),
    "finite_difference": Product(False, 1, True, finite_difference),
    "rounded_difference": Product(False, 1, True, rounded_difference),
}
