"""Degradations: the words of the command line for operators.

A word like ``pool:4`` names an operator and its parameters; ``_WORDS`` holds all of them and what they mean. A word is
read once, before any image is, into a ``Degradation``, which builds the operator for each image shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .. import operators
from ..operators import Operator
from .images import load_image

__all__ = ["Degradation", "line_kernel", "parse_degradation", "parse_operator", "word_list"]

Shape = tuple[int, int, int]
"""The shape of a colour image, (3, H, W)."""


@dataclass(frozen=True)
class Degradation:
    """A degradation that is not yet bound to an image shape.

    Attributes:
        text: the word it was read from.
        build: makes the operator for images of a shape (3, H, W); the seed chooses the pixels of a random mask.
        factor: the sides of the image over those of the measurement, by which image sides must be divisible.
        channels: the number of channels of a measurement.
    """

    text: str
    build: Callable[[Shape, int], Operator]
    factor: int = 1
    channels: int = 3

    def image_shape(self, measurement_shape: tuple[int, ...]) -> Shape:
        """Shape (3, H, W) of the image that a measurement of this shape belongs to."""
        return 3, self.factor * measurement_shape[-2], self.factor * measurement_shape[-1]


def parse_operator(text: str, shape: tuple[int, ...], seed: int = 0) -> Operator:
    """The operator that a word names, for images of ``shape`` (3, H, W).

    Raises:
        ValueError: the word is unknown, its number is out of range, its mask cannot be read, or the operator does not
            fit the shape.
    """
    if len(shape) != 3 or shape[0] != 3:
        raise ValueError(f"shape: must be (3, H, W), got {tuple(shape)}")
    return parse_degradation(text).build((shape[0], shape[1], shape[2]), seed)


def word_list() -> str:
    """Every word with its meaning, one a line, as the command line shows them."""
    lines = []
    for example, meaning, _ in _WORDS.values():
        first, *rest = meaning.splitlines()
        lines += [f"  {example:<16}{first}", *(f"{'':<18}{line}" for line in rest)]
    return "\n".join(lines)


def parse_degradation(text: str) -> Degradation:
    """Read a word.

    Raises:
        ValueError: the word is unknown, its number is out of range, or its mask cannot be read.
    """
    word, colon, arguments = text.partition(":")
    if word not in _WORDS:
        raise ValueError(f"operator: must be one of {', '.join(e for e, _, _ in _WORDS.values())}, got {text!r}")
    example, _, read = _WORDS[word]
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
    taps = max(61, 2 * math.ceil(6 * std) + 1)  # 61 is the default of GaussianBlur; wide kernels end at 6 std.
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


class _Word(NamedTuple):
    """An example of a word, its meaning as ``ccfast restore --help`` prints it, and the function that reads it.

    The function is called with the whole text and with what stands behind the colon.
    """

    example: str
    meaning: str
    read: Callable[[str, str], Degradation]


_WORDS = {
    "inpaint": _Word(
        "inpaint:0.5",
        "random pixels observed, the fraction given; which ones follows from --seed and the image size",
        _inpaint,
    ),
    "box": _Word("box:0.25", "a box in the centre hidden, its sides the fraction given of those of the image", _box),
    "mask": _Word("mask:FILE", "pixels observed where the image FILE is white, hidden where it is black", _mask),
    "pool": _Word("pool:4", "mean of 4 x 4 tiles", _pool),
    "bicubic": _Word("bicubic:4", "bicubic downsampling by 4", _bicubic),
    "gray": _Word("gray", "greyscale (Rec. 601)", _gray),
    "blur": _Word("blur:3.0", "Gaussian blur, the standard deviation in pixels, reflected borders", _blur),
    "motion": _Word(
        "motion:15,30",
        "motion blur, length in pixels and angle in degrees, circular borders (what leaves on one side\n"
        "enters on the other; on a photograph blurred by a camera the borders will show it)",
        _motion,
    ),
}
