"""Any linear map: H and H^T as functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor

from .check_adjoint import check_adjoint, check_result
from .conjugate_gradients import minimum_norm
from .operator import Operator, check_shape, wide

__all__ = ["LinearOperator"]


class LinearOperator(Operator):
    """Hx = forward(x), H^T y = adjoint(y). H+ y and P x = H+ H x by ``iterations`` conjugate gradient steps each.

    There are no singular vectors to be coordinates. Coordinates are images in the range of H^T:

        encode(y) = H+ y,    down(x) = P x,    lift(c) = c

    so that pinv = lift o encode and project = lift o down hold as for every operator; decode, scale and
    singular_values do not exist. What conjugate gradients leave is the part of H+ y along small singular values: with
    k steps the error falls at least as ((c - 1)/(c + 1))^k, c the condition number, and rounding limits it to about
    c eps. Short of convergence P is a projection only as nearly: ||P P x - P x|| is 4 % of ||P x|| for white noise x in
    examples/tomography.py with 64 x 64 pixels, 16 angles and 30 steps.

    A step takes one H and one H^T. Computed in the dtype of the input: pass float64 for float64.

    Args:
        forward: (B, *shape) to (B, *measurement_shape), for any B, in the dtype and on the device of its argument.
            Its float32 matmuls are as exact as torch is set to make them: tf32 costs H+ and P four digits.
        adjoint: (B, *measurement_shape) to (B, *shape), the exact transpose.
        shape: of one image, (C, H, W) or (C, L).
        measurement_shape: None: found by calling forward on zeros.
        iterations: fixed; the number of different singular values is always enough, but for rounding.
        tolerance: a sample stands still once its residual has fallen to this part of the measurement, or the
            gradient to this part of ||H|| times the residual. 0: to rounding.
        check: run ``check_adjoint`` now, once. It wants rounding errors only: an adjoint that is good to 1 % does not
            pass, and makes H+ y wrong by more than that.
        dtype, device: of the tensors that forward and adjoint are tried on now; any may be given later.

    Raises:
        ValueError: an argument against these rules, results of a wrong shape, or an adjoint that is none.
        TypeError: results that are not tensors, or not of the dtype and on the device of the argument.
    """

    kind = "krylov"

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor],
        shape: tuple[int, ...],
        measurement_shape: tuple[int, ...] | None = None,
        iterations: int = 50,
        tolerance: float = 0.0,
        check: bool = True,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        name = type(self).__name__
        shape = check_shape(name, shape)
        for argument, value in (("forward", forward), ("adjoint", adjoint)):
            if not callable(value):
                raise TypeError(f"{name}: {argument} must be a function, got {type(value).__name__}")
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
            raise ValueError(f"{name}: iterations must be a positive integer, got {iterations!r}")
        if not (math.isfinite(tolerance) and 0 <= tolerance < 1):
            raise ValueError(f"{name}: tolerance must be in [0, 1), got {tolerance}")
        if measurement_shape is None:
            zeros = torch.zeros((1, *shape), dtype=dtype, device=device)
            y = forward(zeros)
            check_result("forward", y, zeros, None)
            measurement_shape = tuple(y.shape[1:])
        super().__init__(shape, measurement_shape)
        self._maps = {"forward": (forward, self.measurement_shape), "adjoint": (adjoint, shape)}
        self.iterations, self.tolerance = iterations, float(tolerance)
        if check:
            check_adjoint(self._forward, self._adjoint, shape, dtype=dtype, device=device)

    def _call(self, name: str, x: Tensor) -> Tensor:
        function, shape = self._maps[name]
        if not x.shape[0]:
            return x.new_zeros((0, *shape))
        result = function(x)
        check_result(name, result, x, (x.shape[0], *shape))
        return result

    def _forward(self, x: Tensor) -> Tensor:
        return self._call("forward", x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._call("adjoint", y)

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
