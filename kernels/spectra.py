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

    @property
    def scale(self) -> float:
        """What factors of frequencies lack of the constant: the 1/n that a blur's holds, and 1 for a downsampling."""
        return 1.0 / math.prod(self.sides) if self.low is None else 1.0

    def factors(self, over_modes: Tensor) -> Tensor:
        """Numbers for every mode as (1 or B, h, w), where no channel has its own."""
        return over_modes.reshape(-1, *(self.low or self.sides))

    def packed(self, coordinates: Tensor) -> Tensor:
        """Hartley coordinates (B, C, ...) as the spectra of packed pairs, (B * pairs, h, w), as transforms make them.

        A Hartley transform is Re X - Im X, and the real part of the spectrum X of a real image is even, its imaginary
        part odd. A pair of images a, b has the spectrum X_a + i X_b.
        """
        images, channels = coordinates.shape[:2]
        h = coordinates.reshape(images, channels, *(self.low or self.sides))
        if channels % 2:
            h = torch.cat([h, torch.zeros_like(h[:, :1])], dim=1)
        # A downsampling's basis is scaled for the sums over aliases to be unitary; a blur's transforms are sums.
        h = h * (0.5 if self.low else 0.5 * math.sqrt(math.prod(self.sides)))
        back = h.flip(-2, -1).roll((1, 1), (-2, -1))
        real, imaginary = h + back, back - h
        pair = torch.complex(real[:, ::2] - imaginary[:, 1::2], imaginary[:, ::2] + real[:, 1::2])
        return pair.reshape(-1, *pair.shape[2:])

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
