"""The words of the command line for degradations and what they mean; ``degradations`` reads them.

This module imports nothing, so that help is shown at once.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["WORDS", "word_list"]


class Word(NamedTuple):
    """An example of a word, and its meaning as help prints it, in lines of at most 62 characters."""

    example: str
    meaning: str


WORDS = {
    "inpaint": Word(
        "inpaint:0.5",
        "random pixels observed, the fraction given; which ones follows\nfrom --seed and the image size",
    ),
    "box": Word("box:0.25", "a box in the centre hidden, its sides the fraction given of\nthose of the image"),
    "mask": Word(
        "mask:FILE",
        "pixels observed where the image FILE is white (or, if it has\n"
        "transparency, opaque), hidden where it is black; --invert and\n"
        "--threshold change that; mask:alpha is the transparency of IN",
    ),
    "pool": Word("pool:4", "mean of 4 x 4 tiles"),
    "bicubic": Word("bicubic:4", "bicubic downsampling by 4"),
    "gray": Word("gray", "greyscale (Rec. 601)"),
    "blur": Word(
        "blur:3.0",
        "Gaussian blur, the standard deviation in pixels; what lies\nbeyond the border is unknown, as for all blurs",
    ),
    "motion": Word("motion:15,30", "motion blur, length in pixels and angle in degrees"),
    "defocus": Word("defocus:4", "a lens out of focus, the radius of its disk in pixels"),
    "kernel": Word(
        "kernel:FILE",
        "blur by the kernel in a grey PNG, TIFF or .npy; it is divided\n"
        "by its sum, and a convolution; kernel:FILE,correlation is not",
    ),
    "denoise": Word("denoise", "noise, of the level --noise-std or as estimated"),
    "jpeg": Word(
        "jpeg",
        "the rounding of a JPEG, by the tables of its file; jpeg:20 for\n"
        "another file whose pixels once were a JPEG of this quality",
    ),
    "upscale": Word(
        "upscale:4",
        "made smaller by another tool: Pillow's bicubic filter, or\n"
        "upscale:4,FILTER: lanczos, bilinear, hamming, nearest, or box,\n"
        "which is OpenCV's area",
    ),
    "colorize": Word("colorize", "a grey picture of a scene in colour (as gray)"),
}
"""Every word, by the part before its colon."""


def word_list() -> str:
    """Every word with its meaning, one a line, as the command line shows them."""
    lines = []
    for example, meaning in WORDS.values():
        first, *rest = meaning.splitlines()
        lines += [f"  {example:<14}{first}", *(f"{'':<16}{line}" for line in rest)]
    return "\n".join(lines)
