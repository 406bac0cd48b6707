"""Operators that are known by H and H^T alone, with H+ and P by conjugate gradients."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NoReturn

from torch import Tensor

from .conjugate_gradients import minimum_norm
from .operator import Operator, wide

__all__ = ["Krylov", "check_iterations"]


class Krylov(Operator):
    """The part of ``LinearOperator`` that does not depend on where H and H^T come from.

    A member writes ``_forward`` and ``_adjoint``, on batches in float32 or float64, and sets ``iterations`` and
    ``tolerance``.
    """

    kind = "krylov"
    iterations: int
    tolerance: float

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor:
        """H x."""

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor:
        """H^T y."""

    def forward(self, x: Tensor) -> Tensor:
        self.check_image(x)
        return self._forward(wide(x)).to(x.dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return self._adjoint(wide(y)).to(y.dtype)

    def encode(self, y: Tensor) -> Tensor:
        return minimum_norm(wide(y), self._forward, self._adjoint, self.iterations, self.tolerance).to(y.dtype)

    def down(self, x: Tensor) -> Tensor:
        return self.encode(self._forward(wide(x))).to(x.dtype)

    def lift(self, c: Tensor) -> Tensor:
        return c

    def decode(self, c: Tensor) -> NoReturn:
        self._refuse("decode")

    @property
    def singular_values(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._refuse("singular_values")

    def _refuse(self, name: str) -> NoReturn:
        raise AttributeError(
            f"{name}: {self!r} is given by H and H^T and has no singular values; what needs none works with it "
            "(noise_std=0; DDS and DPS with noise), otherwise give the operator as a Matrix or by a thin SVD of its own"
        )


def check_iterations(name: str, iterations: int, tolerance: float) -> tuple[int, float]:
    """The number of steps and the tolerance of conjugate gradients, or ValueError."""
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise ValueError(f"{name}: iterations must be a positive integer, got {iterations!r}")
    if not (math.isfinite(tolerance) and 0 <= tolerance < 1):
        raise ValueError(f"{name}: tolerance must be in [0, 1), got {tolerance}")
    return iterations, float(tolerance)
