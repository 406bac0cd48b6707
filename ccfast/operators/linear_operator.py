"""Any linear map: H and H^T as functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ._krylov import Krylov, check_iterations
from .check_adjoint import check_adjoint, check_result
from .operator import check_shape

__all__ = ["LinearOperator"]


class LinearOperator(Krylov):
    """Hx = forward(x), H^T y = adjoint(y). H+ y and P x = H+ H x take ``iterations`` conjugate gradient steps each.

    There are no singular vectors to be coordinates. Coordinates are images in the range of H^T:

        encode(y) = H+ y,    down(x) = P x,    lift(c) = c

    so that pinv = lift o encode and project = lift o down hold as for every operator; decode, scale and
    singular_values do not exist. What conjugate gradients leave is the part of H+ y along small singular values: with
    k steps the error falls at least as ((c - 1)/(c + 1))^k, c the condition number, and rounding limits it to about
    c eps. Short of convergence P is a projection only as nearly: ||P P x - P x|| is 4 % of ||P x|| for white noise x in
    examples/tomography.py with 64 x 64 pixels, 16 angles and 30 steps.

    A step takes one H and one H^T, in the dtype of the input; pass float64 for float64.

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
        self.iterations, self.tolerance = check_iterations(name, iterations, tolerance)
        if measurement_shape is None:
            zeros = torch.zeros((1, *shape), dtype=dtype, device=device)
            y = forward(zeros)
            check_result("forward", y, zeros, None)
            measurement_shape = tuple(y.shape[1:])
        super().__init__(shape, measurement_shape)
        self._maps = {"forward": (forward, self.measurement_shape), "adjoint": (adjoint, shape)}
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
