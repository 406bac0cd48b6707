"""The holes of masks, as far as presets tell them apart: a distribution of widths, and what is seen around them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["are_connected", "hole_distance", "holes", "mean_hole_depth"]

SIDES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""The sides of squares that are fitted into holes, in pixels."""
QUANTILES = 8
"""The number of widths that stand for a distribution."""
NEIGHBOURHOOD = 15
"""The side of the square around a hidden pixel in which observed pixels are counted."""
TOO_NARROW = 2.0
"""How many times as far a preset is from holes that are wider than its own as from holes that are narrower."""


def planes(mask: Tensor) -> Tensor:
    """The hidden pixels of a mask (..., H, W) or (C, L) as ones, (N, 1, H, W); a signal is one row."""
    height_and_width = mask.shape[-2:] if mask.ndim > 2 else (1, mask.shape[-1])
    return 1.0 - mask.to(torch.float32).reshape(-1, 1, *height_and_width)


def mean_hole_depth(mask: Tensor) -> float:
    """Mean chessboard distance of the hidden pixels of a mask (..., H, W) or (C, L) from the nearest observed pixel."""
    hidden = planes(mask)
    count, depth = float(hidden.sum()), 0.0
    while hidden.any():
        depth += float(hidden.sum())
        padding = (1, 1, 1, 1)  # Nothing is observed beyond the border.
        hidden = -functional.max_pool2d(-functional.pad(hidden, padding, value=1.0), 3, stride=1)
    return depth / count if count else 0.0


def holes(mask: Tensor) -> list[float]:
    """What holes there are: eight quantiles of their width in pixels, and the share of pixels seen around them.

    The width at a hidden pixel is the side of the largest square of hidden pixels, among those of ``SIDES``, that it
    lies in. Squares end where the picture is narrower, so that those of a signal are intervals. The quantiles are those
    of 1/16, 3/16, ..., 15/16. The share is that of observed pixels in the square of side ``NEIGHBOURHOOD`` around every
    hidden pixel.

    Args:
        mask: 1 where pixels are observed, (..., H, W) or (C, L).

    Returns:
        Nine numbers, or none where nothing is hidden.
    """
    hidden = planes(mask)
    total = float(hidden.sum())
    if not total:
        return []
    # The share of hidden pixels that are at least as wide as each side falls from 1.
    shares = []
    for side in SIDES:
        wide = side <= max(hidden.shape[-2:])
        shares.append(
            float((hidden * opened(hidden, side)).sum()) / total if wide and (not shares or shares[-1]) else 0.0
        )
    at = (2 * np.arange(QUANTILES) + 1) / (2 * QUANTILES)
    # The largest side that more than a share 1 - u of the pixels reaches is the quantile u.
    widths = [float(SIDES[max(k for k, share in enumerate(shares) if share > 1.0 - u or k == 0)]) for u in at]
    around = functional.avg_pool2d(1.0 - hidden, NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2, count_include_pad=False)
    return [*widths, round(float((around * hidden).sum()) / total, 4)]


def opened(hidden: Tensor, side: int) -> Tensor:
    """1 where a pixel lies in a square of hidden pixels with this side, or with the sides of the picture if less."""
    sides = tuple(min(side, n) for n in hidden.shape[-2:])
    full = box_sums(hidden, sides) == sides[0] * sides[1]
    height, width = (n - 1 for n in sides)
    around = functional.pad(full.to(hidden.dtype), (width, width, height, height))
    return (box_sums(around, sides) > 0).to(hidden.dtype)


def box_sums(x: Tensor, sides: tuple[int, ...]) -> Tensor:
    """The sums of ones over all rectangles with these sides (height, width), exact up to 2^31 pixels."""
    for dim, side in zip((-2, -1), sides, strict=True):
        sums = functional.pad(x.to(torch.int32).cumsum(dim, dtype=torch.int32), (1, 0) if dim == -1 else (0, 0, 1, 0))
        count = sums.shape[dim] - side
        x = sums.narrow(dim, side, count) - sums.narrow(dim, 0, count)
    return x


def hole_distance(entry: Sequence[float], own: Sequence[float]) -> float:
    """How far the holes of an entry are from those of a mask, both as ``holes`` tells them.

    The mean over the quantiles of |ln(width/width)|, twice that where the mask's hole is the wider one, since a preset
    for wide holes does less harm in narrow ones than the other way round; and half of |ln(share/share)|.
    """
    if not entry or not own:
        return 0.0 if len(entry) == len(own) else math.inf
    ratios = [math.log(wide / known) for known, wide in zip(entry[:-1], own[:-1], strict=True)]
    widths = sum(TOO_NARROW * ratio if ratio > 0 else -ratio for ratio in ratios) / len(ratios)
    seen = abs(math.log(max(own[-1], 0.01) / max(entry[-1], 0.01)))
    return widths + 0.5 * seen


def are_connected(found: Sequence[float]) -> bool:
    """Whether holes are connected ones rather than random pixels, by what ``holes`` tells of them.

    Their median width is 3 pixels and more, as that of random pixels is where more than 80 % of them are hidden; or it
    is 2, and 60 % of the pixels around are seen, as around thin strokes.
    """
    median = found[(len(found) - 1) // 2]
    return median >= 3.0 or (median >= 2.0 and found[-1] >= 0.6)
