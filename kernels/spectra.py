"""What fourier operators multiply spectra by, and how many complex planes there are, as every backend sees them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..operators import FourierBlur, FourierDownsampling

__all__ = ["Spectra"]

_DOUBLE = torch.empty(0, dtype=torch.float64)


class Spectra:
    """The spectra of one operator. Two channels travel as one complex plane; a signal is a plane of one row.

    Only channels of one image share a complex plane, and of an odd number the last travels alone. A transform rounds
    relative to the largest value in it and spreads NaN over it, so that a shared plane would carry both to another one.

    Attributes:
        sides: (H, W) of a plane.
        low: its sides after decimation, or None for a blur.
    """

    def __init__(self, operator: FourierBlur | FourierDownsampling) -> None:
        self.operator = operator
        height, width = (1, *operator.shape[1:])[-2:]
        self.sides = (height, width)
        self.low: tuple[int, int] | None = None
        if isinstance(operator, FourierDownsampling):
            rows = operator.factor if len(operator.shape) == 3 else 1
            self.low = (self.sides[0] // rows, self.sides[1] // operator.factor)

    def constant(self, like: Tensor) -> Tensor:
        """(1 or B, H, W): 1 / n where a spectrum is kept, or the basis of the aliases, which is applied twice.

        n is the number of pixels: the factor 1 / n of the two transforms is in it.
        """
        operator, n = self.operator, math.prod(self.sides)
        if isinstance(operator, FourierDownsampling):
            return operator.constant(
                "packed basis", lambda: operator._basis(_DOUBLE).reshape(-1, *self.sides) / math.sqrt(n), like
            )
        return operator.constant(
            "packed kept", lambda: (operator.singular_values > 0).double().reshape(-1, *self.sides) / n, like
        )
