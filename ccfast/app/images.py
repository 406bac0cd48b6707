"""Image files to tensors and back.

An image is a float32 tensor, (3, H, W) or (1, H, W), in which the value 0 of a file is -1 and white is 1. For 8 bits:

    x = v / 127.5 - 1,    v = round(127.5 (x + 1)), where x is first clamped to [-1, 1]

What ``save_image`` writes as PNG, ``load_image`` reads back to the bit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .picture_files import as_pillow, check_output, encode, write_bytes
from .pictures import Picture, UnsupportedError, read_picture

__all__ = [
    "as_samples",
    "as_tensor",
    "check_opaque",
    "check_output",
    "load_image",
    "save_image",
    "to_picture",
    "write_picture",
]


def load_image(path: str | os.PathLike[str], *, alpha: Literal["refuse", "drop"] = "refuse") -> Tensor:
    """An image file as a float32 tensor (3, H, W) in [-1, 1].

    Greyscale and palette images become RGB. The EXIF orientation is applied, colour profiles are ignored.

    Args:
        path: a PNG, JPEG, BMP, GIF, TIFF, WebP or PPM file of 8 bits a sample (PNG and TIFF: 8 or 16) and one frame.
        alpha: what to do with pixels that are not opaque: "refuse" raises, "drop" takes their colours as they are.

    Raises:
        ValueError: as ``read_picture``; or the file has pixels that are not opaque.
    """
    if alpha not in ("refuse", "drop"):
        raise ValueError(f"alpha: must be 'refuse' or 'drop', got {alpha!r}")
    picture = read_picture(path)
    if alpha == "refuse":
        check_opaque(picture, path)
    return as_tensor(picture.pixels).expand(3, -1, -1).contiguous()


def check_opaque(picture: Picture, path: str | os.PathLike[str]) -> None:
    """Raise unless every pixel is opaque."""
    if picture.alpha is not None and picture.alpha.min() < picture.largest:
        share = float((picture.alpha < picture.largest).mean())
        raise UnsupportedError(
            f"path: every pixel must be opaque (or --keep-alpha restores the colours under the transparency, and "
            f"--drop-alpha leaves it out), got {str(path)!r} with {share:.1%} of its pixels transparent"
        )


def as_tensor(samples: np.ndarray) -> Tensor:
    """Samples (H, W, C) of 8 or 16 bits as an image (C, H, W), float32 in [-1, 1]."""
    half = np.iinfo(samples.dtype).max / 2
    values = torch.from_numpy(samples.astype(np.float32)).permute(2, 0, 1)
    return values.contiguous().div_(half).sub_(1.0)


def as_samples(image: Tensor, dtype: np.dtype | type = np.uint8) -> np.ndarray:
    """The samples (H, W, C) of an image (3, H, W) or (1, H, W), clamped to [-1, 1] and rounded to 8 or 16 bits.

    Raises:
        ValueError: the tensor has another shape, is not floating point, or holds NaN or Inf.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.numel() == 0:
        raise ValueError(f"image: must have shape (3, H, W) or (1, H, W), got {tuple(image.shape)}")
    if not image.is_floating_point():
        raise ValueError(f"image: must be floating point in [-1, 1], got {image.dtype}")
    values = image.detach().to(device="cpu", dtype=torch.float32)
    if not torch.isfinite(values).all():
        raise ValueError(f"image: must be finite, got {int((~torch.isfinite(values)).sum())} values of NaN or Inf")
    scaled = ((values.clamp(-1.0, 1.0) + 1.0) * (np.iinfo(dtype).max / 2)).round()
    return np.ascontiguousarray(scaled.permute(1, 2, 0).numpy().astype(dtype))


def to_picture(image: Tensor) -> Image.Image:
    """The 8-bit Pillow image of a tensor (3, H, W) or (1, H, W), clamped to [-1, 1] and rounded.

    Raises:
        ValueError: as ``as_samples``.
    """
    return as_pillow(Picture(as_samples(image)))


def save_image(image: Tensor, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a tensor (3, H, W) or (1, H, W) in [-1, 1] as an 8-bit file, whose suffix chooses the format.

    The file appears whole or not at all. JPEG has quality 95, WebP is lossless.

    Raises:
        ValueError: the suffix is none of ``SUFFIXES``, or ``image`` is not such a tensor (see ``to_picture``).
        FileExistsError: ``path`` exists and ``overwrite`` is False.
        OSError: ``path`` cannot be written.
    """
    write_picture(Picture(as_samples(image)), path, overwrite)


def write_picture(picture: Picture | Image.Image, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a picture, or an image of Pillow, as ``save_image`` writes a tensor."""
    check_output(path, overwrite)
    suffix = Path(path).suffix.lower()
    if isinstance(picture, Image.Image):
        samples = np.array(picture)
        picture = Picture(samples if samples.ndim == 3 else samples[..., None])
    write_bytes(path, encode(picture, suffix), overwrite)
