"""Crops of the training photographs, on which parameters are chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ccfast.metrics import gradient_energy

from .patches import PHOTOGRAPHS, load_pyramid

__all__ = ["SIZE", "training_crops"]

SIZE = 128


def training_crops(photos: Path, count: int) -> Tensor:
    """``count`` crops of the reduced training photographs, one a photograph, (count, 3, 128, 128) in [-1, 1].

    A photograph gives the most detailed of sixteen random crops, since most places of a wallpaper are smooth sky. The
    photographs are ordered by that detail and taken at even distances, so that smooth and detailed pictures both count.
    """
    generator = np.random.default_rng(0)
    best = []
    for photograph in PHOTOGRAPHS:
        level = load_pyramid(photos / photograph.package / photograph.path)[-1]
        tops = generator.integers(0, [n - SIZE + 1 for n in level.shape[:2]], size=(16, 2))
        cut = [torch.from_numpy(level[a : a + SIZE, b : b + SIZE].copy()).permute(2, 0, 1) for a, b in tops]
        crops = torch.stack(cut).float() / 127.5 - 1.0
        energy = gradient_energy(crops)
        best.append((float(energy.max()), crops[int(energy.argmax())]))
    best.sort(key=lambda pair: -pair[0])
    return torch.stack([best[int(place)][1] for place in np.linspace(0, len(best) - 1, count)])
