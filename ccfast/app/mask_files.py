"""Masks from image files of any kind: white is observed, black is hidden."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .pictures import Picture, read_picture

__all__ = ["MaskOptions", "mask_of", "read_mask"]

MOST = 0.5
"""The share of hidden pixels above which a mask may have been meant the other way round."""


class MaskOptions(NamedTuple):
    """How masks are read.

    Attributes:
        threshold: a pixel is observed where its value, from 0 for black to 1 for white, is at least this.
        invert: whether black is observed and white is hidden.
    """

    threshold: float = 0.5
    invert: bool = False


DEFAULT = MaskOptions()


def read_mask(path: str | os.PathLike[str], options: MaskOptions = DEFAULT) -> tuple[Tensor, list[str]]:
    """The mask of a file, bool (3, H, W), and what there is to say of it.

    Where the file has pixels that are not opaque its alpha channel is the mask (opaque is observed), whatever its
    colours are. Otherwise every colour is the mask of that colour of the image, so that a grey file hides whole pixels.

    Raises:
        ValueError: the file cannot be read, or hides everything.
    """
    return mask_of(read_picture(path, convert=True), os.fspath(path), options)


def mask_of(picture: Picture, name: str, options: MaskOptions = DEFAULT) -> tuple[Tensor, list[str]]:
    """The same of a picture that was read already, which errors and notes call ``name``."""
    values, said = _values(picture)
    observed = (values >= options.threshold * picture.largest) != options.invert
    notes = [f"mask {name}: {text}" for text in said]
    soft = int(((values > 0) & (values < picture.largest)).any(2).sum())
    if soft:
        notes.append(
            f"mask {name}: {soft} pixels are neither black nor white; those below {options.threshold:.0%} of white "
            "count as black (--threshold)"
        )
    mask = torch.from_numpy(np.ascontiguousarray(observed)).permute(2, 0, 1).expand(3, -1, -1)
    hidden = share_hidden(mask)
    if hidden == 1:
        raise ValueError(
            f"mask: must leave pixels observed (white), got {name!r} that hides all of them{_other(options)}"
        )
    if hidden > MOST:
        notes.append(f"warning: mask {name} hides {hidden:.1%} of the pixels{_other(options)}")
    if hidden == 0:
        notes.append(f"warning: mask {name} hides no pixel{_other(options)}")
    return mask, notes


def share_hidden(mask: Tensor) -> float:
    """The share of the pixels of a mask (C, H, W) that are hidden in some channel."""
    return float((~mask).any(0).double().mean())


def _values(picture: Picture) -> tuple[np.ndarray, list[str]]:
    """The values of a mask, (H, W, C), and what was taken for them."""
    if picture.alpha is not None and picture.alpha.min() < picture.largest:
        return picture.alpha[..., None], ["its alpha channel is taken, opaque is observed"]
    pixels = picture.pixels
    if pixels.shape[2] == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    said = ["its colours differ, so that each hides its own colour of the image"] if pixels.shape[2] == 3 else []
    return pixels, said


def _other(options: MaskOptions) -> str:
    shown = "black is observed and white hidden" if options.invert else "white is observed and black hidden"
    return f"; {shown}, and {'without --invert' if options.invert else '--invert'} it is the other way round"
