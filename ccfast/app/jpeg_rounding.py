"""The rounding of a JPEG: how large it is, and which images it would have left as they are.

A JPEG keeps, of every block of 8 x 8 pixels, the coefficients c of its cosine transform as whole multiples k of the
numbers q of a table. An image explains the file if its coefficients lie in [(k - 1/2) q, (k + 1/2) q].
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from .pictures import Picture

__all__ = ["Rounding", "rounding_of"]

SIDE = 8
LUMA = np.array([0.299, 0.587, 0.114])
LARGER = 2.5
"""The error of a JPEG over that of its coefficients that are not zero, q / sqrt(12) each. Most of the error is in the
coefficients that became zero, of which these are the sign."""
CLEAR = 0.25
"""A coefficient of the file is known where it lies within this part of q from a multiple: not where pixels were cut
off at black or white, or the picture was moved or changed since."""
MOST = 40_000
"""The number of blocks by which the error is estimated."""

_PLACES = np.arange(SIDE)
COSINES = np.sqrt(2 / SIDE) * np.cos(np.pi * (2 * _PLACES[None] + 1) * _PLACES[:, None] / (2 * SIDE))
COSINES[0] /= np.sqrt(2)


class Rounding(NamedTuple):
    """The table q (8, 8) of the brightness, and whether the blocks begin at the picture's corner."""

    table: np.ndarray
    aligned: bool = True

    def error(self, samples: np.ndarray) -> float:
        """The standard deviation of the error of a JPEG's samples (H, W, C) of 8 bits, in their units, estimated."""
        blocks = _blocks(_luma(samples))
        blocks = blocks.reshape(-1, SIDE, SIDE)[:: 1 + blocks.shape[0] * blocks.shape[1] // MOST]
        if not len(blocks):
            return 0.0
        kept = np.rint(_transform(blocks - 128.0) / self.table) != 0
        return LARGER * float(np.sqrt((kept * self.table**2 / 12).mean()))

    def explained(self, image: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """The image (H, W, C), in units of 8 bits, with its brightness moved until it explains the samples."""
        if not self.aligned:
            return image
        own, file = (_transform(_blocks(_luma(part)) - 128.0) / self.table for part in (image, samples))
        whole = np.rint(file)
        moved = np.where(np.abs(file - whole) < CLEAR, own.clip(whole - 0.5, whole + 0.5) - own, 0.0)
        change = np.swapaxes(COSINES.T @ (moved * self.table) @ COSINES, 1, 2)
        rows, columns = change.shape[0] * SIDE, change.shape[2] * SIDE
        result = image.copy()
        result[:rows, :columns] += change.reshape(rows, columns)[..., None]
        return result


def rounding_of(picture: Picture, quality: int | None) -> Rounding | None:
    """The rounding of a picture: by the tables of its file, or of a quality; None where neither is known."""
    if picture.jpeg is not None and picture.jpeg.used:
        table = picture.jpeg.tables[picture.jpeg.used[0]]
        return Rounding(np.array(table, np.float64).reshape(SIDE, SIDE), not picture.turned)
    if quality is None:
        return None
    buffer = io.BytesIO()
    Image.new("L", (SIDE, SIDE)).save(buffer, "JPEG", quality=quality)
    table = Image.open(buffer).quantization[0]  # type: ignore[attr-defined]
    return Rounding(np.array(table, np.float64).reshape(SIDE, SIDE))


def _luma(samples: np.ndarray) -> np.ndarray:
    return samples[..., 0].astype(np.float64) if samples.shape[2] == 1 else samples @ LUMA


def _blocks(plane: np.ndarray) -> np.ndarray:
    """The whole blocks of (H, W), as (H // 8, W // 8, 8, 8)."""
    rows, columns = (side // SIDE for side in plane.shape)
    cut = plane[: rows * SIDE, : columns * SIDE]
    return cut.reshape(rows, SIDE, columns, SIDE).swapaxes(1, 2)


def _transform(blocks: np.ndarray) -> np.ndarray:
    return COSINES @ blocks @ COSINES.T
