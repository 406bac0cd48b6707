"""Degradations: the words of the command line for operators.

A word like ``pool:4`` names an operator and its parameters; ``words`` holds all of them and what they mean. A word is
read once, before any image is, into a ``Degradation``, which builds the operator for each image shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import operators
from ..operators import Operator
from .mask_files import DEFAULT, MaskOptions, read_mask
from .words import WORDS

__all__ = ["Degradation", "fitting_mask", "line_kernel", "parse_degradation", "parse_operator"]

Shape = tuple[int, int, int]
"""The shape of a colour image, (3, H, W)."""
OWN_ALPHA = "alpha"
"""What stands in place of the file for a mask that is the alpha channel of each image."""


@dataclass(frozen=True)
class Degradation:
    """A degradation that is not yet bound to an image shape.

    Attributes:
        text: the word it was read from.
        build: makes the operator for images of a shape (3, H, W); the seed chooses the pixels of a random mask.
        factor: the sides of the image over those of the measurement, by which image sides must be divisible.
        channels: the number of channels of a measurement.
        notes: what there is to say of what the word named, for people.
        own_alpha: whether the mask is the alpha channel of each image itself.
        mask: makes the mask, bool (3, H, W), of a degradation that hides pixels, as ``build`` makes its operator.
    """

    text: str
    build: Callable[[Shape, int], Operator]
    factor: int = 1
    channels: int = 3
    notes: tuple[str, ...] = ()
    own_alpha: bool = False
    mask: Callable[[Shape, int], Tensor] | None = None

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


def parse_degradation(text: str, masks: MaskOptions = DEFAULT) -> Degradation:
    """Read a word.

    Args:
        text: the word.
        masks: how a mask file is read.

    Raises:
        ValueError: the word is unknown, its number is out of range, or its mask cannot be read.
    """
    word, colon, arguments = text.partition(":")
    if word not in WORDS:
        raise ValueError(f"operator: must be one of {', '.join(w.example for w in WORDS.values())}, got {text!r}")
    example, read = WORDS[word].example, _READERS[word]
    if bool(colon) != (":" in example):
        raise ValueError(f"operator: must look like {example!r}, got {text!r}")
    return read(text, arguments, masks) if word == "mask" else read(text, arguments)


# ------------------------------------------------------------------------------------------------ masks
def _masked(text: str, mask: Callable[[Shape, int], Tensor], notes: Sequence[str] = ()) -> Degradation:
    """The degradation that hides what the mask, bool (3, H, W), does not observe."""
    return Degradation(text, lambda shape, seed: operators.Inpainting(mask(shape, seed)), notes=tuple(notes), mask=mask)


def _inpaint(text: str, arguments: str) -> Degradation:
    fraction = _number(
        text, arguments, "the fraction of pixels observed, more than 0 and at most 1", lambda v: 0 < v <= 1
    )

    def mask(shape: Shape, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        observed = torch.rand(1, *shape[1:], generator=generator, dtype=torch.float64) < fraction
        return observed.expand(shape)

    return _masked(text, mask)


def _box(text: str, arguments: str) -> Degradation:
    fraction = _number(text, arguments, "the hidden fraction of each side, between 0 and 1", lambda v: 0 < v < 1)

    def mask(shape: Shape, seed: int) -> Tensor:
        observed = torch.ones(shape, dtype=torch.bool)
        top, left, bottom, right = (
            *(round(n * (1 - fraction) / 2) for n in shape[1:]),
            *(round(n * (1 + fraction) / 2) for n in shape[1:]),
        )
        observed[:, top:bottom, left:right] = False
        return observed

    return _masked(text, mask)


def _mask(text: str, path: str, masks: MaskOptions = DEFAULT) -> Degradation:
    if path == OWN_ALPHA:
        return Degradation(text, _refuse_to_build, own_alpha=True)
    observed, notes = read_mask(path, masks)
    return _masked(text, lambda shape, seed: fitting_mask(observed, path, shape), notes)


def fitting_mask(mask: Tensor, name: str, shape: Shape) -> Tensor:
    """The mask, bool (3, H, W), that errors call ``name``, if it is as large as the image."""
    if mask.shape != shape:
        raise ValueError(
            f"mask: must be as large as the image, {shape[2]} x {shape[1]}, got {name!r} with "
            f"{mask.shape[2]} x {mask.shape[1]}"
        )
    return mask


def _refuse_to_build(shape: Shape, seed: int) -> Operator:
    raise ValueError("mask: 'mask:alpha' is the alpha channel of each image, and works with ccfast restore alone")


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


_READERS: dict[str, Callable[..., Degradation]] = {
    "inpaint": _inpaint,
    "box": _box,
    "mask": _mask,
    "pool": _pool,
    "bicubic": _bicubic,
    "gray": _gray,
    "blur": _blur,
    "motion": _motion,
}
"""The functions that read each word, called with the whole text and with what stands behind the colon; that of a mask
with how masks are read, too."""
