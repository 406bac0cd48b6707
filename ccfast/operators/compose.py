"""Operators one after another, with a thin SVD where the product has one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ._composition import product, with_channels
from ._krylov import Krylov, check_iterations
from .matrix import Matrix
from .operator import Operator, check_cutoff

__all__ = ["Compose"]


def Compose(  # noqa: N802, named as the members of this folder are
    *operators: Operator, cutoff: float = 0.0, iterations: int = 50, tolerance: float = 0.0
) -> Operator:
    """H = H_n ... H_2 H_1: the first operator is applied first, as in torch.nn.Sequential.

    This is a function, since what it returns is an operator of whatever class and kind the product has; no class
    ``Compose`` takes part at run time. Neighbours become one operator with a thin SVD where that is cheap:

        masks, soft masks                                       -> the product of the masks
        separable operators, also with AveragePooling           -> separable, the SVD of the product of each 1-D matrix
        AveragePooling twice                                    -> AveragePooling
        FourierBlur, BandLimit, FourierDownsampling, AveragePooling in a row, one of them a Fourier operator
                                                                -> FourierBlur or FourierDownsampling
        Grayscale before or after what acts on all channels alike (all of these, a mask if it has one channel)
                                                                -> the mean over the channels, then that operator
        a Matrix with anything but a LinearOperator             -> Matrix

    What is left is a chain of kind "krylov": H+ y and P x by conjugate gradients, as for ``LinearOperator``.

    Args:
        operators: at least one, each taking what the one before it gives.
        cutoff: singular values of a product below it count as zero (1-D factors for separable, |k_hat| for Fourier
            operators, those of the Matrix). Products of blurs that were cut at 0.03 go down to 0.001.
        iterations, tolerance: of conjugate gradients, where they are needed.

    Raises:
        TypeError: not operators.
        ValueError: none, shapes that do not follow, different numbers of images, or a product that is zero.
    """
    if not operators:
        raise ValueError("Compose: operators must be at least one, got none")
    for operator in operators:
        if not isinstance(operator, Operator):
            raise TypeError(f"Compose: operators must be ccfast Operators, got {type(operator).__name__}")
    check_cutoff("Compose", cutoff)
    chain = fixed_channels(operators)
    for first, then in itertools.pairwise(chain):
        if first.measurement_shape != then.shape:
            raise ValueError(
                f"Compose: operators, the first applied first, must each take what the one before gives, got {first!r} "
                f"before {then!r}"
            )
    batches = {operator.batch for operator in chain if operator.batch is not None}
    if len(batches) > 1:
        raise ValueError(f"Compose: operators must hold parts for one number of images, got {sorted(batches)}")
    matrices = sum(isinstance(operator, Matrix) for operator in chain)
    if len(chain) > 1 and matrices and not batches and all(operator.kind != "krylov" for operator in chain):
        return dense_product(chain, cutoff)
    k = 0
    while k + 1 < len(chain):
        merged = product(chain[k], chain[k + 1], cutoff)
        if merged is None:
            k += 1
        else:
            chain[k : k + 2] = [merged]
            k = max(k - 1, 0)
    return chain[0] if len(chain) == 1 else Chain(chain, iterations, tolerance)


class Chain(Krylov):
    """Operators one after another without a common SVD."""

    def __init__(self, operators: Sequence[Operator], iterations: int, tolerance: float) -> None:
        self.operators = tuple(operators)
        super().__init__(operators[0].shape, operators[-1].measurement_shape)
        self.iterations, self.tolerance = check_iterations("Compose", iterations, tolerance)
        self.batch = next((operator.batch for operator in operators if operator.batch is not None), None)

    def _forward(self, x: Tensor) -> Tensor:
        for operator in self.operators:
            x = operator.forward(x)
        return x

    def _adjoint(self, y: Tensor) -> Tensor:
        for operator in reversed(self.operators):
            y = operator.adjoint(y)
        return y

    def repeat(self, n: int) -> Operator:
        if self.batch is None:
            return self
        return Chain([operator.repeat(n) for operator in self.operators], self.iterations, self.tolerance)


def fixed_channels(operators: Sequence[Operator]) -> list[Operator]:
    """Masks for any number of channels, fixed to the number that their neighbours have (if those have any)."""
    chain = list(operators)
    for order in (range(1, len(chain)), range(len(chain) - 2, -1, -1)):
        for k in order:
            near = chain[k - 1] if order.step > 0 else chain[k + 1]
            if chain[k].any_channels and not near.any_channels:
                chain[k] = with_channels(chain[k], (near.measurement_shape if order.step > 0 else near.shape)[0])
    return chain


def dense_product(chain: Sequence[Operator], cutoff: float) -> Matrix:
    """The Matrix of all operators, made from its columns or its rows, whichever are fewer."""
    shape, measured = chain[0].shape, chain[-1].measurement_shape
    n, m = math.prod(shape), math.prod(measured)
    if n <= m:
        columns = torch.eye(n, dtype=torch.float64).reshape(n, *shape)
        for operator in chain:
            columns = operator.forward(columns)
        return Matrix(columns.reshape(n, m).mT, shape, cutoff, measured)
    rows = torch.eye(m, dtype=torch.float64).reshape(m, *measured)
    for operator in reversed(chain):
        rows = operator.adjoint(rows)
    return Matrix(rows.reshape(m, n), shape, cutoff, measured)
