"""Pictures that no bundled prior has seen, which are the colour photographs inside scikit-image's wheel.

They are for reporting only. Weights, presets and defaults are chosen on training photographs.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["PHOTOGRAPHS", "crops", "square"]

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left")
"""The names of the files, without suffix."""


def photograph(name: str) -> Image.Image:
    """One of ``PHOTOGRAPHS``, uncropped.

    Raises:
        ImportError: scikit-image is not installed.
        ValueError: the name is another.
    """
    if name not in PHOTOGRAPHS:
        raise ValueError(f"name: must be one of {', '.join(PHOTOGRAPHS)}, got {name!r}")
    try:
        from skimage import data
    except ImportError as error:
        raise ImportError("the held-out photographs need scikit-image: pip install 'ccfast[demo]'") from error
    return Image.fromarray(data.stereo_motorcycle()[0] if name == "motorcycle_left" else getattr(data, name)())


def square(name: str, size: int = 256) -> Tensor:
    """The centre square of a photograph, resized with Lanczos' filter, as float32 (3, size, size) in [-1, 1]."""
    picture = photograph(name)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    box = (left, top, left + side, top + side)
    pixels = np.array(picture.resize((size, size), Image.Resampling.LANCZOS, box=box))
    return torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32) / 127.5 - 1.0


def crops(size: int = 128) -> Tensor:
    """Ten crops (10, 3, size, size): the centre and the upper left corner of each ``square(name)`` of side 256."""
    cut = []
    for name in PHOTOGRAPHS:
        picture, middle = square(name), (256 - size) // 2
        cut += [picture[:, at : at + size, at : at + size] for at in (middle, 0)]
    return torch.stack(cut)
