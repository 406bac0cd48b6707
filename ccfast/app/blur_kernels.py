"""Kernels of blur: lines, disks, Gaussians, and files that hold any other."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .pictures import read_picture

__all__ = ["disk_kernel", "gaussian_kernel", "line_kernel", "read_kernel"]


def line_kernel(length: float, angle: float) -> Tensor:
    """The kernel of motion along a line: float64 (k, k) with k odd, non-negative, of sum 1.

    The line goes through the centre and is anti-aliased: points spread evenly over it give their weight to the four
    pixels around each (bilinear interpolation).

    Args:
        length: the length of the line in pixels.
        angle: its angle in degrees, counter-clockwise from the x axis.
    """
    radius = math.ceil((length - 1) / 2) + 1
    points = max(2, 16 * math.ceil(length))
    along = torch.linspace(-(length - 1) / 2, (length - 1) / 2, points, dtype=torch.float64)
    across = torch.arange(-radius, radius + 1, dtype=torch.float64)
    # Angles are counted with y upwards, but rows are counted downwards.
    x, y = along * math.cos(math.radians(angle)), -along * math.sin(math.radians(angle))
    rows = (1 - (across[:, None] - y).abs()).clamp_min(0)
    columns = (1 - (across[:, None] - x).abs()).clamp_min(0)
    return rows @ columns.T / points


def disk_kernel(radius: float) -> Tensor:
    """The kernel of a lens out of focus, a disk of which each pixel has its part: float64 (k, k), k odd, of sum 1.

    Args:
        radius: the radius of the disk in pixels.
    """
    parts, reach = 16, math.ceil(radius - 0.5) if radius > 0.5 else 0
    place = (torch.arange(parts * (2 * reach + 1), dtype=torch.float64) + 0.5) / parts - (reach + 0.5)
    inside = (place[:, None].square() + place.square() <= radius * radius).to(torch.float64)
    taps = inside.unflatten(1, (-1, parts)).unflatten(0, (-1, parts)).mean((1, 3))
    return taps / taps.sum()


def gaussian_kernel(std: float) -> Tensor:
    """A Gaussian of this standard deviation in pixels that ends at 4 of them: float64 (k, k), k odd, of sum 1."""
    place = torch.arange(-math.ceil(4 * std), math.ceil(4 * std) + 1, dtype=torch.float64)
    row = torch.exp(-0.5 * (place / std) ** 2)
    row = row / row.sum()
    return row[:, None] * row


def read_kernel(path: str | os.PathLike[str]) -> Tensor:
    """The taps of a kernel file, float64 (kh, kw) of sum 1: a grey PNG or TIFF, or a NumPy array (.npy).

    Rows and columns of zeros are left out in pairs, one at each end, so that the centre stays where it is.

    Raises:
        ValueError: the file cannot be read, holds no array (kh, kw) of finite numbers, or its sum is not positive.
    """
    if Path(path).suffix.lower() == ".npy":
        try:
            taps = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"kernel: must be a readable array of numbers, got {str(path)!r}: {error}") from None
    else:
        pixels = read_picture(path, convert=True).pixels
        if pixels.shape[2] == 3 and not (pixels == pixels[..., :1]).all():
            raise ValueError(f"kernel: must be grey, got {str(path)!r} with colours")
        taps = pixels[..., 0]
    taps = np.squeeze(taps) if taps.ndim > 2 else taps
    if taps.ndim != 2 or not taps.size or taps.dtype.kind not in "fiub" or not np.isfinite(taps).all():
        raise ValueError(
            f"kernel: must be finite real numbers of shape (kh, kw), got {str(path)!r} with {taps.dtype} {taps.shape}"
        )
    taps = taps.astype(np.float64)
    if not taps.sum() > 1e-12 * np.abs(taps).sum():
        raise ValueError(f"kernel: must have a positive sum, got {str(path)!r} with {taps.sum():g}")
    for axis in (0, 1):
        while taps.shape[axis] > 2 and not taps.take([0, -1], axis).any():
            taps = taps.take(range(1, taps.shape[axis] - 1), axis)
    return torch.from_numpy(taps / taps.sum())
