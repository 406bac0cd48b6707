"""Rows of fourier operators: pack two real planes as a complex one, transform, multiply, transform back, unpack."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...operators import FourierBlur, FourierDownsampling
from . import ops

__all__ = ["fourier_row"]

_FLOAT, _DOUBLE = torch.empty(0), torch.empty(0, dtype=torch.float64)


def fourier_row(operator: FourierBlur | FourierDownsampling):
    """The factor 1 / n of the two transforms is folded into the constants."""
    return Fourier(operator)


class Fourier:
    """Complex planes (groups * pairs, H, W); a group is what shares a kernel: an image, or the whole batch."""

    def __init__(self, operator: FourierBlur | FourierDownsampling) -> None:
        sides = operator.shape[1:]
        self.sides = sides if len(sides) == 2 else (1, *sides)
        self.common = operator.batch is None
        self.spectrum = torch.empty(0)
        n = math.prod(sides)
        if isinstance(operator, FourierDownsampling):
            self.low = [size // low for size, low in zip(self.sides, self._factors(operator), strict=True)]
            self.constant = operator.constant(
                "native basis", lambda: operator._basis(_DOUBLE).reshape(-1, *self.sides) / math.sqrt(n), _FLOAT
            )
        else:
            self.low = None
            self.constant = operator.constant(
                "native kept", lambda: (operator.singular_values > 0).double().reshape(-1, *self.sides) / n, _FLOAT
            )

    @staticmethod
    def _factors(operator: FourierDownsampling) -> tuple[int, int]:
        return (operator.factor, operator.factor) if len(operator.shape) == 3 else (1, operator.factor)

    def __call__(
        self,
        out: Tensor,
        after: Tensor | None,
        c_in: float,
        terms: list[Tensor],
        direct: list[float],
        projected: list[float],
        scales: Sequence[Tensor] | None = None,
        scaled: Sequence[int] | None = None,
    ) -> None:
        batch, channels = out.shape[:2]
        groups, planes = (1, batch * channels) if self.common else (batch, channels)
        shape = (groups * ((planes + 1) // 2), *self.sides)
        if planes % 2 == 0 and out.dtype == torch.float32:  # what is packed fits out, which nothing reads
            z = torch.view_as_complex(out.view(*shape, 2))
        else:
            if self.spectrum.shape != shape:
                self.spectrum = torch.empty(shape, dtype=torch.complex64)
            z = self.spectrum
        ops.fourier_pack(z, terms, projected, scales, scaled, groups)
        transformed = torch.fft.fft2(z)
        if self.low is None:
            ops.fourier_multiply(z, transformed, self.constant, groups)
        else:
            ops.fourier_alias(z, transformed, self.constant, groups, *self.low)
        del transformed  # before the next transform takes as much memory
        back = torch.fft.ifft2(z, norm="forward")
        ops.fourier_unpack(out, after, c_in, terms, direct, scales, scaled, back, groups)
