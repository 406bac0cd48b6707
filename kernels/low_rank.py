"""P x = V_r V_r^T x V_c V_c^T by torch's matrix products, for separable operators that have no banded form."""

from __future__ import annotations

import torch
from torch import Tensor

from ..operators.separable import Separable, true_float32

__all__ = ["LowRankProducts"]


class LowRankProducts:
    """The products with V of every axis, first down to the coordinates and then back up, columns before rows.

    Where that takes fewer operations (``whole``), V V^T of every axis is one matrix instead.
    """

    def __init__(self, operator: Separable) -> None:
        self.operator = operator
        self.whole = operator.dense_projection

    def factors(self, like: Tensor) -> list[Tensor]:
        """V (side, rank) of every axis, or V V^T (side, side) where ``whole``. That of the columns is the last."""
        return [self._factor(axis, like) for axis in range(len(self.operator.factors))]

    def _factor(self, axis: int, like: Tensor) -> Tensor:
        v = self.operator.factors[axis].v
        return self.operator.constant(
            f"low-rank factor {axis}", lambda: (v @ v.mT if self.whole else v).contiguous(), like
        )

    def work(self, like: Tensor) -> list[Tensor]:
        """Float32 tensors for the results of the products but the last, on images (B, C, ...) like these."""
        ranks, sides = [factor.s.numel() for factor in self.operator.factors], like.shape[2:]
        planes = like.shape[0] * like.shape[1]
        if self.whole:
            sizes = [(planes, *sides)]
        elif len(ranks) == 1:
            sizes = [(planes, ranks[0])]
        else:
            sizes = [(planes, sides[0], ranks[1]), (planes, *ranks), (planes, ranks[0], sides[1])]
        return [torch.empty(size, dtype=torch.float32, device=like.device) for size in sizes]

    def project(self, x: Tensor, factors: list[Tensor], work: list[Tensor]) -> None:
        """Set x to P x. A product with the factor of the columns is one matrix product over all rows of the batch."""
        with true_float32():
            *rows, columns = factors
            flat, image = x.view(-1, x.shape[-1]), x.view(-1, *x.shape[2:])
            rows = [factor.expand(image.shape[0], -1, -1) for factor in rows]
            torch.mm(flat, columns, out=work[0].view(-1, columns.shape[1]))
            if self.whole:
                if rows:
                    torch.bmm(rows[0], work[0], out=image)
                else:
                    flat.copy_(work[0])
            elif not rows:
                torch.mm(work[0], columns.mT, out=flat)
            else:
                torch.bmm(rows[0].mT, work[0], out=work[1])
                torch.mm(work[1].view(-1, columns.shape[1]), columns.mT, out=work[2].view(-1, x.shape[-1]))
                torch.bmm(rows[0], work[2], out=image)
