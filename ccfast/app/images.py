"""Image files to tensors and back.

An image is a float32 tensor, (3, H, W) or (1, H, W), in which the value 0 of an 8-bit file is -1 and 255 is 1:

    x = v / 127.5 - 1,    v = round(127.5 (x + 1)), where x is first clamped to [-1, 1]

What ``save_image`` writes as PNG, ``load_image`` reads back to the bit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

__all__ = ["check_output", "load_image", "save_image", "to_picture", "write_picture"]

# The formats whose decoders say how many bits a sample has. Others (AVIF, JPEG 2000) lower deep samples to 8 bits
# without a word.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_DEEP_MODES = ("I", "F")
_SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def load_image(path: str | os.PathLike[str], *, alpha: Literal["refuse", "drop"] = "refuse") -> Tensor:
    """An image file as a float32 tensor (3, H, W) in [-1, 1].

    Greyscale and palette images become RGB. The EXIF orientation is applied, colour profiles are ignored.

    Args:
        path: a PNG, JPEG, BMP, GIF, TIFF, WebP or PPM file with 8 bits a sample and one frame.
        alpha: what to do with pixels that are not opaque: "refuse" raises, "drop" takes their colours as they are.

    Raises:
        ValueError: the file is missing, truncated or no image of these formats; it has more than 8 bits a sample,
            another colour space (CMYK, LAB, YCbCr), several frames, or pixels that are not opaque.
    """
    if alpha not in ("refuse", "drop"):
        raise ValueError(f"alpha: must be 'refuse' or 'drop', got {alpha!r}")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            _check_kind(path, image)
            has_alpha = image.has_transparency_data
            upright = ImageOps.exif_transpose(image).convert("RGBA" if has_alpha else "RGB")
    except _UnsupportedError:
        raise
    except Exception as error:  # Broken data makes decoders raise OSError, SyntaxError, zlib.error, ...
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(
            f"path: must be a readable image ({', '.join(_FORMATS)}), got {str(path)!r}: {reason}"
        ) from error
    pixels = np.array(upright)
    if has_alpha and alpha == "refuse" and pixels[..., 3].min() < 255:
        share = float((pixels[..., 3] < 255).mean())
        raise ValueError(
            f"path: every pixel must be opaque (or drop the transparency with alpha='drop'), got {str(path)!r} with "
            f"{share:.1%} of its pixels transparent"
        )
    return torch.from_numpy(pixels[..., :3]).permute(2, 0, 1).contiguous().to(torch.float32).div_(127.5).sub_(1.0)


class _UnsupportedError(ValueError):
    """The file is a readable image of a kind that is refused."""


def _check_kind(path: str | os.PathLike[str], image: Image.Image) -> None:
    # An MPO is the JPEG of a camera with previews or depth maps as further frames; the first is the photograph.
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        raise _UnsupportedError(f"path: must hold one image, got {str(path)!r} with {frames} frames")
    if image.mode.split(";")[0] in _DEEP_MODES or _has_deep_samples(image):
        raise _UnsupportedError(
            f"path: must have 8 bits a sample, got {str(path)!r} with more (mode {image.mode}); convert it first, for "
            "rounding it here would lose what it holds"
        )
    if image.mode not in _MODES:
        raise _UnsupportedError(f"path: must be RGB, greyscale or palette, got {str(path)!r} with mode {image.mode}")


def _has_deep_samples(image: Image.Image) -> bool:
    """Whether Pillow would lower 16-bit samples to 8 bits, in mode "RGB", which only the file's raw mode tells."""
    for tile in image.tile:  # type: ignore[attr-defined]
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        raw_mode = str(arguments[0]) if arguments else ""
        if ";16" in raw_mode and not raw_mode.startswith("BGR"):  # "BGR;16" is a BMP with 5 or 6 bits a sample.
            return True
        if tile[0] in ("ppm", "ppm_plain") and arguments[-1] > 255:  # It is the largest value of a sample.
            return True
    return False


def to_picture(image: Tensor) -> Image.Image:
    """The 8-bit Pillow image of a tensor (3, H, W) or (1, H, W), clamped to [-1, 1] and rounded.

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
    pixels = ((values.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def save_image(image: Tensor, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a tensor (3, H, W) or (1, H, W) in [-1, 1] as an 8-bit file, whose suffix chooses PNG or JPEG (quality 95).

    The file appears whole or not at all.

    Raises:
        ValueError: the suffix is not .png, .jpg or .jpeg, or ``image`` is not such a tensor (see ``to_picture``).
        FileExistsError: ``path`` exists and ``overwrite`` is False.
        OSError: ``path`` cannot be written.
    """
    write_picture(to_picture(image), path, overwrite)


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Raise what ``save_image`` would raise because of ``path``, before any work is done."""
    target = Path(path)
    if target.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"path: must end in {', '.join(_SUFFIXES)}, got {str(path)!r}")
    if target.is_dir():
        raise IsADirectoryError(f"path: must be a file, got the folder {str(path)!r}")
    if not overwrite and os.path.lexists(target):
        raise FileExistsError(f"path: must not exist unless it may be overwritten, got {str(path)!r}")


def write_picture(
    picture: Image.Image, path: str | os.PathLike[str], overwrite: bool = False, **options: object
) -> None:
    """Write a Pillow image as ``save_image`` writes a tensor; ``options`` go to Pillow's encoder."""
    check_output(path, overwrite)
    target = Path(path)
    file_format = _SUFFIXES[target.suffix.lower()]
    if file_format == "JPEG":
        options = {"quality": 95} | options
    # The file is written beside the target and renamed, so that a crash or a full disk never leaves half a file.
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        picture.save(partial, format=file_format, **options)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
