"""Clipping of x0hat, with the derivative that goes with it: plain PyTorch, beside whatever backend runs the rows.

Every row is written in x and F, so that a clipped estimate C(x0hat) is another output of the network,

    F_c = F + (C(x0hat) - x0hat)/q,        p x + q F_c = C(x0hat),

from which eps follows as (x - mu C(x0hat))/sigma, in every solver and without a change of its coefficients. Its product
with the residual follows from that of the network: with D = dC/dx0hat and c = c_in,

    (dF_c/d(c x))^T r = (dF/d(c x))^T D^T r - p/(q c) (r - D^T r)

so that the derivative of an estimate that is clipped is zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..kernels.reference import per_image
from .plan import Clip, Step

__all__ = ["Clipped", "check_clip", "clipped"]

RATIO = 0.995
"""The part of the values that dynamic thresholding leaves as they are (Saharia et al., arXiv 2205.11487)."""


class Clipped(NamedTuple):
    """What a clipped evaluation gives.

    Attributes:
        output: F_c, in the dtype of the network's output.
        inside: where x0hat is not clipped.
        threshold: that of every image, (B,), where it is dynamic, or None.
        place: two elements of every image, (B, 2), between whose magnitudes the threshold lies.
        share: how much of the threshold each of them is, (B, 2), and zeros where the threshold is 1.
        x0hat: before it was clipped, where the threshold is dynamic.
    """

    output: Tensor
    inside: Tensor
    threshold: Tensor | None = None
    place: Tensor | None = None
    share: Tensor | None = None
    x0hat: Tensor | None = None

    def pulled(self, r: Tensor) -> Tensor:
        """D^T r, a tensor of its own."""
        kept = torch.where(self.inside, r, 0.0)
        if self.threshold is None or self.x0hat is None or self.place is None or self.share is None:
            return kept
        # C = clamp(x0hat, -s, s)/s: d C/d s is -x0hat/s^2 where it is not clipped, and zero where it is.
        wide = kept.to(self.x0hat.dtype)
        slope = -(wide * self.x0hat).flatten(1).sum(1) / self.threshold.square()
        out = (wide / per_image(self.threshold, wide)).flatten(1)
        sign = self.x0hat.flatten(1).gather(1, self.place).sign()
        return out.scatter_add(1, self.place, slope[:, None] * self.share * sign).view_as(r).to(r.dtype)

    def product(self, step: Step, r: Tensor, pulled: Tensor, h: Tensor) -> Tensor:
        """The product of F_c from h, that of F with ``pulled`` = D^T r."""
        return h - (step.p / (step.q * step.c_in)) * (r - pulled).to(h.dtype)


def check_clip(clip: object) -> Clip:
    """None, "dynamic", or a pair of finite numbers in order as floats; ValueError otherwise."""
    if clip is None or (isinstance(clip, str) and clip == "dynamic"):
        return clip
    if isinstance(clip, Sequence) and not isinstance(clip, str) and len(clip) == 2:
        low, high = clip
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in clip)
        if numbers and low < high:
            return float(low), float(high)
    raise ValueError(f"clip: must be None, 'dynamic' or two finite numbers (low, high) with low < high, got {clip!r}")


def clipped(clip: Clip, step: Step, x: Tensor, output: Tensor) -> Clipped:
    """F_c for a state x and the network's output F there. Nothing in it waits for the device."""
    wide = torch.promote_types(torch.promote_types(output.dtype, x.dtype), torch.float32)
    x0hat = step.p * x.to(wide) + step.q * output.to(wide)
    if isinstance(clip, tuple):
        target = x0hat.clamp(*clip)
        inside = (x0hat > clip[0]) & (x0hat < clip[1])
        return Clipped(changed(output, target - x0hat, step.q), inside)
    threshold, place, share = dynamic_threshold(x0hat)
    each = per_image(threshold, x0hat)
    target = torch.minimum(torch.maximum(x0hat, -each), each) / each
    return Clipped(changed(output, target - x0hat, step.q), x0hat.abs() < each, threshold, place, share, x0hat)


def changed(output: Tensor, difference: Tensor, q: float) -> Tensor:
    """F plus the change of x0hat over q: what is not clipped keeps its bits."""
    return torch.where(difference == 0, output, (output.to(difference.dtype) + difference / q).to(output.dtype))


def dynamic_threshold(x0hat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """max(1, q) of every image, with q the ``RATIO`` quantile of |x0hat|, and how q lies between two elements."""
    size = x0hat.flatten(1).abs()
    last = size.shape[1] - 1
    low = min(math.floor(RATIO * last), max(last - 1, 0))
    fraction = RATIO * last - low
    values, index = size.topk(size.shape[1] - low, dim=1)
    place = torch.stack([index[:, -1], index[:, -2 if last else -1]], dim=1)
    below, beyond = values[:, -1], values[:, -2 if last else -1]
    quantile = (1.0 - fraction) * below + fraction * beyond
    above = (quantile > 1.0).to(x0hat.dtype)
    return quantile.clamp_min(1.0), place, torch.stack([(1.0 - fraction) * above, fraction * above], dim=1)
