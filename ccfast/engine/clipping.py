"""Clipping of x0hat and its derivative, in plain PyTorch whatever backend runs the rows.

Every row is written in x and F, so that a clipped estimate C(x0hat) is another output of the network,

    F_c = F + (C(x0hat) - x0hat)/q,        p x + q F_c = C(x0hat),

from which eps follows as (x - mu C(x0hat))/sigma, in every solver and without a change of its coefficients. Its product
with the residual follows from that of the network: with D = dC/dx0hat and c = c_in,

    (dF_c/d(c x))^T r = (dF/d(c x))^T D^T r - p/(q c) (r - D^T r)

so that the derivative of an estimate that is clipped is zero. A step whose eps stays that of the network
(``EstimateOnly``) has its ``clip_q`` in place of q in F_c.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .._clip import Clip, DynamicThreshold, EstimateOnly, check_clip, dynamic_threshold, limits_of
from ..kernels.reference import per_image
from .plan import Step

__all__ = ["Clipped", "DynamicThreshold", "EstimateOnly", "check_clip", "clipped", "dynamic_threshold"]


class Clipped(NamedTuple):
    """An evaluation whose x0hat was clipped. The last four are None where the limits are numbers.

    Attributes:
        output: The clipped output F_c, in the dtype of the network's output.
        inside: A mask of the elements of x0hat that are not clipped.
        threshold: The dynamic threshold of every image, (B,).
        place: The indices of two elements of every image, (B, 2), between whose magnitudes the threshold lies.
        share: The weights of these two in the threshold, (B, 2), which are zero where the threshold is 1.
        x0hat: The estimate before it was clipped.
        estimate: The estimate after it was clipped, where it is not p x + q F_c.
    """

    output: Tensor
    inside: Tensor
    threshold: Tensor | None = None
    place: Tensor | None = None
    share: Tensor | None = None
    x0hat: Tensor | None = None
    estimate: Tensor | None = None

    def pulled(self, r: Tensor) -> Tensor:
        """D^T r, a new tensor."""
        kept = torch.where(self.inside, r, 0.0)
        if self.threshold is None or self.x0hat is None or self.place is None or self.share is None:
            return kept
        # C is clamp(x0hat, -s, s)/s, so that dC/ds is -x0hat/s^2 where x0hat is not clipped, and zero where it is.
        wide = kept.to(self.x0hat.dtype)
        slope = -(wide * self.x0hat).flatten(1).sum(1) / self.threshold.square()
        out = (wide / per_image(self.threshold, wide)).flatten(1)
        sign = self.x0hat.flatten(1).gather(1, self.place).sign()
        return out.scatter_add(1, self.place, slope[:, None] * self.share * sign).view_as(r).to(r.dtype)

    def product(self, step: Step, r: Tensor, pulled: Tensor, h: Tensor) -> Tensor:
        """The product (dF_c/d(c x))^T r from ``pulled`` = D^T r and the network's product h with that."""
        return h - (step.p / (step.q * step.c_in)) * (r - pulled).to(h.dtype)


def clipped(clip: Clip, step: Step, x: Tensor, output: Tensor) -> Clipped:
    """Clip the estimate of a state x and the network's output F there. Nothing here waits for the device."""
    wide = torch.promote_types(torch.promote_types(output.dtype, x.dtype), torch.float32)
    x0hat = step.p * x.to(wide) + step.q * output.to(wide)
    limits, q = limits_of(clip), step.q
    alone = isinstance(clip, EstimateOnly) and step.clip_q is not None
    if alone and step.clip_q is not None:
        q = step.clip_q
    if isinstance(limits, tuple):
        target = x0hat.clamp(*limits)
        inside = (x0hat > limits[0]) & (x0hat < limits[1])
        return Clipped(changed(output, target - x0hat, q), inside, estimate=target if alone else None)
    threshold, place, share = dynamic_threshold(x0hat, clip)
    each = per_image(threshold, x0hat)
    target = torch.minimum(torch.maximum(x0hat, -each), each) / each
    output, estimate = changed(output, target - x0hat, q), target if alone else None
    return Clipped(output, x0hat.abs() < each, threshold, place, share, x0hat, estimate)


def changed(output: Tensor, difference: Tensor, q: float) -> Tensor:
    """F plus the change of x0hat over q. Elements that are not clipped keep their bits."""
    return torch.where(difference == 0, output, (output.to(difference.dtype) + difference / q).to(output.dtype))
