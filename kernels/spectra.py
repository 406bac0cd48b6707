"""The constants by which fourier operators multiply spectra, and the packing of real planes into complex ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..operators import FourierBlur, FourierDownsampling

__all__ = ["Spectra"]

_DOUBLE = torch.empty(0, dtype=torch.float64)


class Spectra:
    """The spectra of one operator.

    Two channels of an image are transformed as one complex plane, and a signal is a plane with one row. The last of an
    odd number of channels is transformed alone. Images never share a plane, since a transform rounds relative to the
    largest value in it and spreads NaN over it.

    Attributes:
        sides: The height and the width of a plane.
        low: The height and the width after decimation, or None for a blur.
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
        """The constant of the operator, (1 or B, H, W), which also holds the factor 1/n of the transforms of n pixels.

        A blur multiplies its spectra by 1/n where it keeps a frequency, and by 0 elsewhere. A downsampling has the
        basis of the aliases, over sqrt(n) because it is applied twice.
        """
        operator, n = self.operator, math.prod(self.sides)
        if isinstance(operator, FourierDownsampling):
            return operator.constant(
                "packed basis", lambda: operator._basis(_DOUBLE).reshape(-1, *self.sides) / math.sqrt(n), like
            )
        return operator.constant(
            "packed kept", lambda: (operator.singular_values > 0).double().reshape(-1, *self.sides) / n, like
        )
