"""Pictures that no bundled prior has seen: the colour photographs that come inside scikit-image's wheel.

They are for reporting only. Weights, presets and defaults are chosen on training photographs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["PHOTOGRAPHS", "crops", "photograph"]

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left")
"""Names of the files, without suffix."""


def photograph(name: str) -> Tensor:
    """One of ``PHOTOGRAPHS``, whole, float32 (3, H, W) in [-1, 1].

    Raises:
        ImportError: scikit-image is not installed.
        ValueError: another name.
    """
    if name not in PHOTOGRAPHS:
        raise ValueError(f"name: must be one of {', '.join(PHOTOGRAPHS)}, got {name!r}")
    try:
        from skimage import data
    except ImportError as error:
        raise ImportError("the held-out photographs need scikit-image: pip install 'ccfast[demo]'") from error
    picture = data.stereo_motorcycle()[0] if name == "motorcycle_left" else getattr(data, name)()
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float() / 127.5 - 1.0


def crops(size: int = 128) -> Tensor:
    """Ten crops at the pictures' own resolution, two a photograph (the centre, and the centre of the upper left
    quarter), float32 (10, 3, size, size)."""
    cut = []
    for name in PHOTOGRAPHS:
        picture = photograph(name)
        for part in (2, 4):
            top, left = ((n // part) - size // 2 for n in picture.shape[1:])
            top, left = max(top, 0), max(left, 0)
            cut.append(picture[:, top : top + size, left : left + size])
    return torch.stack(cut)
