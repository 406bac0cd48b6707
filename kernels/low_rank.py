"""P x = V_r V_r^T x V_c V_c^T by matrix products of torch, for what no kernel of ours takes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..operators.separable import Separable, true_float32

__all__ = ["LowRankProducts"]


class LowRankProducts:
    """x V_c, V_r^T of that, and back up; or V V^T of each axis as one matrix, where that takes fewer operations."""

    def __init__(self, operator: Separable) -> None:
        self.operator = operator
        self.whole = operator.dense_projection

    def factors(self, like: Tensor) -> list[Tensor]:
        """V (side, rank) of every axis or, where whole, V V^T; columns come last."""
        return [self._factor(axis, like) for axis in range(len(self.operator.factors))]

    def _factor(self, axis: int, like: Tensor) -> Tensor:
        v = self.operator.factors[axis].v
        return self.operator.constant(
            f"low-rank factor {axis}", lambda: (v @ v.mT if self.whole else v).contiguous(), like
        )

    def work(self, like: Tensor) -> list[Tensor]:
        """What lies between the products for images like these, first columns and then rows; float32."""
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
        """x = P x, in place; a product with the columns is one matrix product of all rows of the batch."""
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
