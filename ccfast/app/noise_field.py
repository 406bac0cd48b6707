"""Noise that belongs to the places of a picture, so that a tile begins with the noise of its place in the whole."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .tiles import Box

__all__ = ["noise_field"]

CELL = 64


def noise_field(box: Box, seed: int) -> Tensor:
    """Standard normal numbers (1, 3, h, w), float32, of a part of the plane. Each cell of 64 x 64 has its own seed."""
    rows = []
    for row in range(box.top // CELL, -(-box.bottom // CELL)):
        cells = [_cell(row, column, seed) for column in range(box.left // CELL, -(-box.right // CELL))]
        rows.append(torch.cat(cells, 2))
    height, width = box.hw
    top, left = box.top % CELL, box.left % CELL
    return torch.cat(rows, 1)[None, :, top : top + height, left : left + width].contiguous()


def _cell(row: int, column: int, seed: int) -> Tensor:
    words = np.random.SeedSequence([seed, row, column]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(words[0]) >> 1)
    return torch.randn(3, CELL, CELL, generator=generator, dtype=torch.float32)
