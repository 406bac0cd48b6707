"""Denoising: the whole image is observed."""

from __future__ import annotations

import torch

from .inpainting import Inpainting
from .operator import check_shape

__all__ = ["Denoising"]


class Denoising(Inpainting):
    """Hx = x. It is an Inpainting that observes every pixel, so that the kernels of the kind "mask" serve it.

    Args:
        shape: of one image, (C, H, W) or (C, L).

    Raises:
        ValueError: not such a shape.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        shape = check_shape(type(self).__name__, shape)
        super().__init__(torch.ones((1, *shape[1:]), dtype=torch.float64), shape)
