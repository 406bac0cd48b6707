"""Numbers that people write with a unit: levels of noise, thresholds and amounts of memory."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

__all__ = ["Level", "parse_level", "parse_memory", "parse_threshold"]

_SCALES = {"255": 255.0, "65535": 65535.0, "1": 1.0, "2": 2.0}
"""What black and white may differ by, as it stands behind the number; 2 is the range [-1, 1] of the networks."""


class Level(NamedTuple):
    """A standard deviation of noise, as a share of the distance from black to white."""

    share: float

    @property
    def std(self) -> float:
        """The same in the range of the networks, [-1, 1], in which black and white differ by two."""
        return 2.0 * self.share

    def __str__(self) -> str:
        return f"{255 * self.share:.3g} of 255 ({self.share:.3g} of the range from black to white)"


def parse_level(text: str) -> Level:
    """Read a level: 25/255 or 25@255, 0.1 or 0.1@1 or 10%, 0.2@2 for a range of [-1, 1].

    Raises:
        ValueError: it is no such number, negative, not finite, or a number above 1 without its scale.
    """
    match = re.fullmatch(r"\s*([^@/%\s]+)\s*(?:[@/]\s*(\d+)|(%))?\s*", text)
    number = _finite(match[1]) if match else math.nan
    scale = 100.0 if match and match[3] else _SCALES.get(match[2] or "1", math.nan) if match else math.nan
    rule = "noise-std: must be a number of at least 0 with its scale, such as 25/255, 25@255, 0.1 or 10%"
    if not (number >= 0 and math.isfinite(number) and math.isfinite(scale)):
        raise ValueError(f"{rule}, got {text!r}")
    if number > scale:
        more = f"; for 8-bit values write {text.strip()}/255" if scale == 1.0 else ""
        raise ValueError(f"{rule}, and not more than the scale itself, got {text!r}{more}")
    return Level(number / scale)


def parse_threshold(text: str) -> float:
    """Read a threshold of a mask, in (0, 1]: 0.5, 50%, 128/255 or 128@255.

    Raises:
        ValueError: it is no such number.
    """
    try:
        share = parse_level(text).share
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise ValueError(f"threshold: must be in (0, 1], such as 0.5, 50% or 128/255, got {text!r}")
    return share


def parse_memory(text: str) -> int:
    """Read an amount of memory in bytes: 2G, 1.5GiB, 800M, 500MB; units are powers of 1024.

    Raises:
        ValueError: it is no such amount, or zero.
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*([KMGT]?)i?B?\s*", text, re.IGNORECASE)
    amount = _finite(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ") if match else math.nan
    if not (math.isfinite(amount) and amount >= 1):
        raise ValueError(f"max-memory: must be an amount such as 2G or 800M, got {text!r}")
    return int(amount)


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
