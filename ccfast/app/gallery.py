"""A gallery: one picture with a row for each restoration, from truth to result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .images import to_picture

__all__ = ["Panel", "Row", "draw_gallery"]

_MARGIN, _GAP = 24, 12
_TITLE_HEIGHT, _CAPTION_HEIGHT = 34, 30
_TITLE_SIZE, _CAPTION_SIZE = 20, 15
_SMALLEST_SIDE = 192  # A panel at least as wide holds its caption.
_BACKGROUND, _INK, _FAINT = (255, 255, 255), (24, 24, 24), (96, 96, 96)


class Panel(NamedTuple):
    """An image (3, H, W) or (1, H, W) in [-1, 1], and the caption under it."""

    image: Tensor
    caption: str


class Row(NamedTuple):
    """A title, a note at its right, and the panels below them; the first panel sets the size of the others."""

    title: str
    note: str
    panels: Sequence[Panel]


def draw_gallery(rows: Sequence[Row]) -> Image.Image:
    """All rows in one RGB picture.

    Panels smaller than the first of their row are enlarged to its size by repeating pixels, so that a sub-sampled
    measurement shows what it is.

    Raises:
        ValueError: there are no rows, or a row has no panels.
    """
    if not rows or not all(row.panels for row in rows):
        raise ValueError(f"rows: must be at least one, each with a panel, got {[len(row.panels) for row in rows]}")
    sizes = [_panel_size(row.panels[0].image) for row in rows]
    width = max(len(row.panels) * (size[0] + _GAP) - _GAP for row, size in zip(rows, sizes, strict=True))
    height = sum(_TITLE_HEIGHT + size[1] + _CAPTION_HEIGHT for size in sizes) + (len(rows) - 1) * _GAP
    gallery = Image.new("RGB", (width + 2 * _MARGIN, height + 2 * _MARGIN), _BACKGROUND)
    draw = ImageDraw.Draw(gallery)
    title_font, caption_font = ImageFont.load_default(size=_TITLE_SIZE), ImageFont.load_default(size=_CAPTION_SIZE)
    top = _MARGIN
    for row, size in zip(rows, sizes, strict=True):
        draw.text((_MARGIN, top), row.title, _INK, title_font)
        draw.text((_MARGIN + width, top + 4), row.note, _FAINT, caption_font, anchor="ra")
        top += _TITLE_HEIGHT
        for index, panel in enumerate(row.panels):
            left = _MARGIN + index * (size[0] + _GAP)
            gallery.paste(to_picture(panel.image).convert("RGB").resize(size, Image.Resampling.NEAREST), (left, top))
            draw.text((left, top + size[1] + 6), panel.caption, _INK, caption_font)
        top += size[1] + _CAPTION_HEIGHT + _GAP
    return gallery


def _panel_size(image: Tensor) -> tuple[int, int]:
    """(width, height) of an image enlarged by the smallest whole number that makes it wide and high enough."""
    height, width = image.shape[-2:]
    scale = max(1, math.ceil(_SMALLEST_SIDE / min(height, width)))
    return scale * width, scale * height
