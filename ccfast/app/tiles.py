"""Large pictures in tiles: which part of a measurement each is restored from, and how they are joined."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Box", "join_tiles", "plan_tiles"]

UNIT = 8
"""Tiles begin at multiples of this, where the cells of the network's coarsest level begin, too."""


class Box(NamedTuple):
    """Rows top to bottom and columns left to right of a picture, the ends not among them."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def hw(self) -> tuple[int, int]:
        """The height and the width."""
        return self.bottom - self.top, self.right - self.left

    def of(self, samples: np.ndarray) -> np.ndarray:
        """This part of (H, W, ...)."""
        return samples[self.top : self.bottom, self.left : self.right]

    def times(self, factor: int) -> Box:
        """The box in a picture whose sides are ``factor`` times as long."""
        return Box(*(factor * side for side in self))


def plan_tiles(hw: tuple[int, int], tile: int | None, margin: int) -> list[Box]:
    """Boxes that cover a picture and overlap by twice the margin, row by row; one for a picture that is small enough.

    A box restores its pixels from what it sees. Those within the margin of a side that is not the border of the picture
    know less than in the whole, and are left to the next box.

    Args:
        hw: the sides of the picture.
        tile: the longest side of a box, a multiple of 8; None: no limit.
        margin: a multiple of 8; less than half of ``tile`` is used.
    """
    if tile is None or max(hw) <= tile:
        return [Box(0, 0, *hw)]
    tile = max(4 * UNIT, tile // UNIT * UNIT)
    margin = min(margin, (tile - UNIT) // 2 // UNIT * UNIT)
    rows, columns = (_spans(side, tile, margin) for side in hw)
    return [Box(top, left, bottom, right) for top, bottom in rows for left, right in columns]


def _spans(side: int, tile: int, margin: int) -> list[tuple[int, int]]:
    """Stretches of at most ``tile`` that cover a side, from multiples of UNIT on, and overlap by two margins."""
    if side <= tile:
        return [(0, side)]
    step = tile - 2 * margin
    count = -(-(side - 2 * margin) // step)
    starts = [min(k * step, -(-(side - tile) // UNIT) * UNIT) for k in range(count)]
    return [(start, min(start + tile, side)) for start in starts]


def join_tiles(
    boxes: list[Box], factor: int, restore: Callable[[Box], Tensor], write: Callable[[Box, Tensor, Tensor], None]
) -> None:
    """Restore box after box, join those of a row, and hand each row to ``write`` with its weights.

    The weights (h, 1) rise from 0 to 1 over the middle half of the overlap with the row above, so that
    ``(1 - weight) old + weight new`` joins the two; boxes of a row are joined in the same way.

    Args:
        boxes: of the measurement, row by row, as ``plan_tiles`` gives them.
        factor: the sides of the result over those of the measurement.
        restore: a box to the image (C, factor H, factor W).
        write: is called with the box of a row in the result, its image and its weights.
    """
    above = 0
    for top, row in groupby(boxes, key=lambda box: box.top):
        columns = list(row)
        band = restore(columns[0])
        for left, box in pairwise(columns):
            image, overlap = restore(box), factor * (left.right - box.left)
            weight = image.new_tensor(_ramp(overlap, overlap))
            before, under = band.tensor_split([band.shape[-1] - overlap], 2)
            band = torch.cat([before, torch.lerp(under, image[..., :overlap], weight), image[..., overlap:]], 2)
        bottom = columns[0].bottom
        whole = Box(top, columns[0].left, bottom, columns[-1].right).times(factor)
        weight = band.new_tensor(_ramp(factor * (bottom - top), factor * max(0, above - top)))
        write(whole, band, weight[:, None])
        above = bottom


def _ramp(side: int, overlap: int) -> np.ndarray:
    """Weights along one side: 0 in the first quarter of the overlap, 1 after its third, linear between."""
    place = np.arange(side) + 0.5
    if not overlap:
        return np.ones(side, np.float32)
    return ((place - overlap / 4) / (overlap / 2)).clip(0, 1).astype(np.float32)
