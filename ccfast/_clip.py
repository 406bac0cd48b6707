"""The clipping of an estimate x0hat: what a clip may be, and the estimate that it makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Clip", "DynamicThreshold", "EstimateOnly", "check_clip", "dynamic_threshold", "limited", "limits_of"]

RATIO = 0.995
"""The part of the values that dynamic thresholding leaves as they are (Saharia et al., arXiv 2205.11487)."""


@dataclass(frozen=True)
class DynamicThreshold:
    """Dynamic thresholding (Saharia et al., arXiv 2205.11487): x0hat becomes clamp(x0hat, -s, s)/s.

        s = min(max(q, 1), sample_max_value),    q the ``ratio`` quantile of |x0hat| of each image

    Args:
        ratio: The part of the values that is left as it is, in (0, 1]; diffusers' ``dynamic_thresholding_ratio``.
        sample_max_value: The largest threshold, > 0. Infinity is the paper's; diffusers' default is 1, which clips to
            [-1, 1].

    Raises:
        ValueError: An argument breaks its rule.
    """

    ratio: float = RATIO
    sample_max_value: float = math.inf

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio: must lie in (0, 1], got {self.ratio!r}")
        if not self.sample_max_value > 0:
            raise ValueError(f"sample_max_value: must be a number > 0, got {self.sample_max_value!r}")


@dataclass(frozen=True)
class EstimateOnly:
    """A clip that leaves eps in steps of DDIM as the network has it, x' = mu' C(x0hat) + sigma' eps.

    That is what diffusers' DDIM does (``use_clipped_model_output=False``). With any other clip, and in any other
    solver, eps follows from the clipped estimate, eps = (x - mu C(x0hat))/sigma.

    Args:
        limits: (low, high), "dynamic" or a ``DynamicThreshold``.
    """

    limits: tuple[float, float] | Literal["dynamic"] | DynamicThreshold

    def __post_init__(self) -> None:
        if self.limits is None or isinstance(self.limits, EstimateOnly):
            raise ValueError(f"limits: must be (low, high), 'dynamic' or a DynamicThreshold, got {self.limits!r}")
        object.__setattr__(self, "limits", check_clip(self.limits))


Clip = tuple[float, float] | Literal["dynamic"] | DynamicThreshold | EstimateOnly | None
"""The clipping of x0hat: to (low, high), by dynamic thresholding ("dynamic" has its default values), or none."""


def check_clip(clip: object) -> Clip:
    """Return a clip with its limits as floats. Anything else is a ValueError."""
    if (
        clip is None
        or isinstance(clip, DynamicThreshold | EstimateOnly)
        or (isinstance(clip, str) and clip == "dynamic")
    ):
        return clip
    if isinstance(clip, Sequence) and not isinstance(clip, str) and len(clip) == 2:
        low, high = clip
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in clip)
        if numbers and low < high:
            return float(low), float(high)
    raise ValueError(
        "clip: must be None, 'dynamic' or two finite numbers (low, high) with low < high, or a DynamicThreshold or "
        f"EstimateOnly, got {clip!r}"
    )


def limits_of(clip: Clip) -> tuple[float, float] | Literal["dynamic"] | DynamicThreshold | None:
    """What a clip does to x0hat, whatever it does to eps."""
    return clip.limits if isinstance(clip, EstimateOnly) else clip


def limited(x0hat: Tensor, clip: Clip) -> Tensor:
    """The clipped estimate of images (B, ...)."""
    clip = limits_of(clip)
    if clip is None:
        return x0hat
    if isinstance(clip, tuple):
        return x0hat.clamp(*clip)
    threshold = dynamic_threshold(x0hat, clip)[0].view(-1, *(1 for _ in x0hat.shape[1:]))
    return torch.minimum(torch.maximum(x0hat, -threshold), threshold) / threshold


def dynamic_threshold(x0hat: Tensor, clip: Clip = "dynamic") -> tuple[Tensor, Tensor, Tensor]:
    """The threshold s of every image, (B,), two places in |x0hat| that it lies between, and their shares, (B, 2).

    The shares are the derivative of s with respect to the values at these places, and zero where s is a limit.
    """
    limits = limits_of(clip)
    rule = limits if isinstance(limits, DynamicThreshold) else DynamicThreshold()
    size = x0hat.flatten(1).abs()
    last = size.shape[1] - 1
    low = min(math.floor(rule.ratio * last), max(last - 1, 0))
    fraction = rule.ratio * last - low
    values, index = size.topk(size.shape[1] - low, dim=1)
    place = torch.stack([index[:, -1], index[:, -2 if last else -1]], dim=1)
    below, beyond = values[:, -1], values[:, -2 if last else -1]
    quantile = (1.0 - fraction) * below + fraction * beyond
    moves = ((quantile > 1.0) & (quantile < rule.sample_max_value)).to(x0hat.dtype)
    share = torch.stack([(1.0 - fraction) * moves, fraction * moves], dim=1)
    return quantile.clamp(1.0, rule.sample_max_value), place, share
