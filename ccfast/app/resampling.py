"""Images that other tools made smaller: the matrices of Pillow's filters, borders included."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from ..operators.operator import check_factor, check_shape
from ..operators.separable import Factor, Separable, thin_svd

__all__ = ["FILTERS", "Resampling"]

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "box": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}
"""The filters by their names. They are those of Pillow; "box" is OpenCV's INTER_AREA for whole factors, too."""


class Resampling(Separable):
    """Downsampling by a whole factor as Pillow's ``resize`` does it, with weights beyond the border left out.

    Args:
        shape: of one image, (3, H, W).
        factor: ratio of the sides.
        filter_name: one of ``FILTERS``.

    Raises:
        ValueError: not such a shape, factor not a positive integer, or a side that it does not divide.
    """

    def __init__(self, shape: tuple[int, ...], factor: int, filter_name: str = "bicubic") -> None:
        name = type(self).__name__
        shape = check_shape(name, shape)
        factor = check_factor(name, factor, shape)
        super().__init__(shape, [_factor_of(side, factor, filter_name) for side in shape[1:]])


@lru_cache(maxsize=4)
def _factor_of(side: int, factor: int, filter_name: str) -> Factor:
    """The SVD of the matrix (side / factor, side), whose columns are what Pillow makes of unit vectors."""
    identity = Image.fromarray(np.eye(side, dtype=np.float32))
    matrix = np.asarray(identity.resize((side, side // factor), FILTERS[filter_name]), dtype=np.float64)
    return thin_svd("Resampling", matrix, 0.0)
