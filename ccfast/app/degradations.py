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
from .blur_kernels import disk_kernel, gaussian_kernel, line_kernel, read_kernel
from .jpeg_rounding import Rounding
from .levels import Level, parse_level
from .mask_files import DEFAULT, MaskOptions, read_mask
from .resampling import FILTERS, Resampling
from .words import WORDS

__all__ = ["Degradation", "fitting_mask", "line_kernel", "parse_degradation", "parse_operator"]

Shape = tuple[int, int, int]
"""The shape of a colour image, (3, H, W)."""
CONVENTIONS = ("convolution", "correlation")
OPTIONAL = ("denoise", "jpeg")
"""Words that may stand without what is behind their colon."""
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
        kernel: the taps (kh, kw), of sum 1, of a blur of a scene that goes on beyond the border, a convolution.
        denoises, jpeg: whether what is to be taken away is white noise, or the rounding of a JPEG.
        level: the level of the noise, where the word says it.
        quality: that of a JPEG, where the word says it.
        rounding: of a JPEG, once its file is known.
        like: makes an operator whose presets are taken, where that of ``build`` has none.
    """

    text: str
    build: Callable[[Shape, int], Operator]
    factor: int = 1
    channels: int = 3
    notes: tuple[str, ...] = ()
    own_alpha: bool = False
    mask: Callable[[Shape, int], Tensor] | None = None
    kernel: Tensor | None = None
    denoises: bool = False
    jpeg: bool = False
    level: Level | None = None
    quality: int | None = None
    like: Callable[[Shape, int], Operator] | None = None
    rounding: Rounding | None = None

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
    wrong = bool(colon) != bool(arguments) if word in OPTIONAL else bool(colon) != (":" in example)
    if wrong:
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
    kernel = gaussian_kernel(std)
    return Degradation(text, lambda shape, seed: operators.GaussianBlur(shape, std=std, taps=taps), kernel=kernel)


def _motion(text: str, arguments: str) -> Degradation:
    length, comma, angle = arguments.partition(",")
    if not comma:
        raise ValueError(f"operator: must look like 'motion:15,30' (length, angle in degrees), got {text!r}")
    kernel = line_kernel(
        _number(text, length, "the length in pixels, at least 1 and at most 500", lambda v: 1 <= v <= 500),
        _number(text, angle, "the angle in degrees", lambda v: True),
    )
    return Degradation(text, lambda shape, seed: operators.FourierBlur(shape, kernel), kernel=kernel)


def _defocus(text: str, arguments: str) -> Degradation:
    radius = _number(text, arguments, "the radius in pixels, at least 0.5 and at most 100", lambda v: 0.5 <= v <= 100)
    return _blurred(text, disk_kernel(radius))


def _kernel(text: str, arguments: str) -> Degradation:
    path, comma, convention = arguments.rpartition(",")
    if not comma or convention not in CONVENTIONS:
        path, convention = arguments, "convolution"
    taps = read_kernel(path)
    shown = f"kernel {path}: {taps.shape[0]} x {taps.shape[1]} taps, of sum 1, as a {convention}"
    if convention == "correlation":
        taps = taps.flip(0, 1)
        # The centre of an even number of taps is on the other side of the middle of the flipped ones.
        taps = torch.nn.functional.pad(taps, (1 - taps.shape[1] % 2, 0, 1 - taps.shape[0] % 2, 0))
    return _blurred(text, taps, notes=(shown,))


def _blurred(text: str, kernel: Tensor, notes: tuple[str, ...] = ()) -> Degradation:
    """The convolution with a kernel whose scene goes on beyond the border; the measurements that we make reflect it."""

    def build(shape: Shape, seed: int) -> Operator:
        return operators.Blur(shape, kernel, convention="convolution", normalize=False)

    return Degradation(text, build, notes=notes, kernel=kernel)


# ------------------------------------------------------------------------------------------------ noise, JPEG, tools
def _denoise(text: str, arguments: str) -> Degradation:
    level = parse_level(arguments) if arguments else None
    return Degradation(text, lambda shape, seed: operators.Denoising(shape), denoises=True, level=level)


def _jpeg(text: str, arguments: str) -> Degradation:
    rule = "the quality of a JPEG, a whole number from 1 to 100"
    quality = None
    if arguments:
        quality = int(_number(text, arguments, rule, lambda v: v.is_integer() and 1 <= v <= 100))
    return Degradation(text, lambda shape, seed: operators.Denoising(shape), jpeg=True, quality=quality)


def _upscale(text: str, arguments: str) -> Degradation:
    number, _, filter_name = arguments.partition(",")
    factor = _factor(text, number)
    filter_name = filter_name or "bicubic"
    if filter_name not in FILTERS:
        raise ValueError(f"operator: upscale takes a factor and one of {', '.join(FILTERS)}, got {text!r}")

    def build(shape: Shape, seed: int) -> Operator:
        return Resampling(shape, factor, filter_name)

    def like(shape: Shape, seed: int) -> Operator:
        kind = operators.AveragePooling if filter_name == "box" else operators.Bicubic
        return kind(shape, factor)

    return Degradation(text, build, factor=factor, like=like)


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
    "defocus": _defocus,
    "kernel": _kernel,
    "denoise": _denoise,
    "jpeg": _jpeg,
    "upscale": _upscale,
    "colorize": _gray,
}
"""The functions that read each word, called with the whole text and with what stands behind the colon; that of a mask
with how masks are read, too."""
