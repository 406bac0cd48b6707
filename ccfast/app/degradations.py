"""Degradations: the words of the command line for operators.

    inpaint:0.5     random pixels observed, the fraction given; which ones follows from the seed and the image size
    box:0.25        a box in the centre hidden, its sides the fraction given of those of the image
    mask:FILE       pixels observed where the image FILE is white, hidden where it is black
    pool:4          mean of 4 x 4 tiles
    bicubic:4       bicubic downsampling by 4
    gray            greyscale (Rec. 601)
    blur:3.0        Gaussian blur, the standard deviation in pixels, reflected borders
    motion:15,30    motion blur, length in pixels and angle in degrees (counter-clockwise from the x axis), circular

A word is read once, before any image; its operator is built for each image shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import operators
from ..operators import Operator
from .images import load_image

__all__ = ["Degradation", "line_kernel", "parse_degradation", "parse_operator"]

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Degradation:
    """A degradation that is not yet bound to an image shape.

    Attributes:
        text: the word it was read from.
        build: (shape, seed) to Operator; shape is (3, H, W).
        factor: sides of the image over sides of the measurement; image sides must be divisible by it.
        channels: of a measurement.
    """

    text: str
    build: Callable[[Shape, int], Operator]
    factor: int = 1
    channels: int = 3

    def image_shape(self, measurement_shape: tuple[int, ...]) -> Shape:
        """Shape (3, H, W) of the image that a measurement of this shape belongs to."""
        return 3, self.factor * measurement_shape[-2], self.factor * measurement_shape[-1]


def parse_operator(text: str, shape: tuple[int, ...], seed: int = 0) -> Operator:
    """The operator that a word of the table above names, for images of ``shape`` (3, H, W).

    Raises:
        ValueError: unknown word, bad number, shape that the operator does not fit, unreadable mask.
    """
    if len(shape) != 3 or shape[0] != 3:
        raise ValueError(f"shape: must be (3, H, W), got {tuple(shape)}")
    return parse_degradation(text).build((shape[0], shape[1], shape[2]), seed)


def parse_degradation(text: str) -> Degradation:
    """Read a word of the table above.

    Raises:
        ValueError: unknown word, bad number, unreadable mask.
    """
    word, colon, arguments = text.partition(":")
    if word not in _WORDS:
        raise ValueError(f"operator: must be one of {', '.join(e for e, _ in _WORDS.values())}, got {text!r}")
    example, read = _WORDS[word]
    if bool(colon) != (":" in example):
        raise ValueError(f"operator: must look like {example!r}, got {text!r}")
    return read(text, arguments)


# ------------------------------------------------------------------------------------------------ masks
def _inpaint(text: str, arguments: str) -> Degradation:
    fraction = _number(
        text, arguments, "the fraction of pixels observed, more than 0 and at most 1", lambda v: 0 < v <= 1
    )

    def build(shape: Shape, seed: int) -> Operator:
        generator = torch.Generator().manual_seed(seed)
        mask = torch.rand(1, *shape[1:], generator=generator, dtype=torch.float64) < fraction
        return operators.Inpainting(mask.expand(shape))

    return Degradation(text, build)


def _box(text: str, arguments: str) -> Degradation:
    fraction = _number(text, arguments, "the hidden fraction of each side, between 0 and 1", lambda v: 0 < v < 1)

    def build(shape: Shape, seed: int) -> Operator:
        mask = torch.ones(shape, dtype=torch.bool)
        top, left, bottom, right = (
            *(round(n * (1 - fraction) / 2) for n in shape[1:]),
            *(round(n * (1 + fraction) / 2) for n in shape[1:]),
        )
        mask[:, top:bottom, left:right] = False
        return operators.Inpainting(mask)

    return Degradation(text, build)


def _mask(text: str, path: str) -> Degradation:
    mask = load_image(path)
    if not ((mask == 1) | (mask == -1)).all():
        grey = int(((mask != 1) & (mask != -1)).any(0).sum())
        raise ValueError(
            f"mask: every pixel must be black (hidden) or white (observed), got {path!r} with {grey} others"
        )

    def build(shape: Shape, seed: int) -> Operator:
        if mask.shape != shape:
            raise ValueError(
                f"mask: must be as large as the image, {shape[2]} x {shape[1]}, got {path!r} with "
                f"{mask.shape[2]} x {mask.shape[1]}"
            )
        return operators.Inpainting(mask > 0)

    return Degradation(text, build)


# ------------------------------------------------------------------------------------------------ sub-sampling
def _pool(text: str, arguments: str) -> Degradation:
    factor = _factor(text, arguments)
    return Degradation(text, lambda shape, seed: operators.AveragePooling(shape, factor), factor=factor)


def _bicubic(text: str, arguments: str) -> Degradation:
    factor = _factor(text, arguments)
    return Degradation(text, lambda shape, seed: operators.Bicubic(shape, factor), factor=factor)


# ------------------------------------------------------------------------------------------------ colour and blur
def _gray(text: str, arguments: str) -> Degradation:
    return Degradation(text, lambda shape, seed: operators.Grayscale(shape), channels=1)


def _blur(text: str, arguments: str) -> Degradation:
    std = _number(text, arguments, "the standard deviation in pixels, from 0.1 to 100", lambda v: 0.1 <= v <= 100)
    taps = max(61, 2 * math.ceil(6 * std) + 1)  # the default of GaussianBlur, or out to six standard deviations
    return Degradation(text, lambda shape, seed: operators.GaussianBlur(shape, std=std, taps=taps))


def _motion(text: str, arguments: str) -> Degradation:
    length, comma, angle = arguments.partition(",")
    if not comma:
        raise ValueError(f"operator: must look like 'motion:15,30' (length, angle in degrees), got {text!r}")
    kernel = line_kernel(
        _number(text, length, "the length in pixels, at least 1 and at most 500", lambda v: 1 <= v <= 500),
        _number(text, angle, "the angle in degrees", lambda v: True),
    )
    return Degradation(text, lambda shape, seed: operators.FourierBlur(shape, kernel))


def line_kernel(length: float, angle: float) -> Tensor:
    """A line of ``length`` pixels at ``angle`` degrees, anti-aliased: float64 (k, k), k odd, sum 1.

    Points spread evenly over the line through the centre each give their weight to the four pixels around them
    (bilinear).
    """
    radius = math.ceil((length - 1) / 2) + 1
    points = max(2, 16 * math.ceil(length))
    along = torch.linspace(-(length - 1) / 2, (length - 1) / 2, points, dtype=torch.float64)
    across = torch.arange(-radius, radius + 1, dtype=torch.float64)
    x, y = along * math.cos(math.radians(angle)), -along * math.sin(math.radians(angle))  # rows grow downwards
    rows = (1 - (across[:, None] - y).abs()).clamp_min(0)
    columns = (1 - (across[:, None] - x).abs()).clamp_min(0)
    return rows @ columns.T / points


# ------------------------------------------------------------------------------------------------ numbers
def _number(text: str, number: str, rule: str, holds: Callable[[float], bool]) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and holds(value)):
        raise ValueError(f"operator: {text.partition(':')[0]} takes {rule}, got {text!r}")
    return value


def _factor(text: str, arguments: str) -> int:
    rule = "the factor, a whole number from 2 to 64"
    return int(_number(text, arguments, rule, lambda v: v.is_integer() and 2 <= v <= 64))


# word: how it is written, and what reads it
_WORDS: dict[str, tuple[str, Callable[[str, str], Degradation]]] = {
    "inpaint": ("inpaint:0.5", _inpaint),
    "box": ("box:0.25", _box),
    "mask": ("mask:FILE", _mask),
    "pool": ("pool:4", _pool),
    "bicubic": ("bicubic:4", _bicubic),
    "gray": ("gray", _gray),
    "blur": ("blur:3.0", _blur),
    "motion": ("motion:15,30", _motion),
}
