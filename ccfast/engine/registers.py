"""The registers of a run: what the terms of a row and the rules of a plan read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ..kernels.row import Key, Ops
from ..operators import Operator

if TYPE_CHECKING:
    from .plan import Step

__all__ = ["Registers"]


class Registers(dict[Key, Tensor]):
    """Tensors by (register, age).

    Attributes:
        operator, measurement: H and y of the run.
        coordinates: encode(y), where the plan or its initial state asks for it.
        ops, plain: the operations of the backend and of the reference, bound to the operator.
    """

    def __init__(self, operator: Operator, measurement: Tensor, ops: Ops, plain: Ops) -> None:
        super().__init__()
        self.operator, self.measurement = operator, measurement
        self.ops, self.plain = ops, plain
        self.coordinates: Tensor | None = None

    def estimate(self, step: Step) -> Tensor:
        """x0hat = p x + q F of this step, a tensor of its own."""
        return self.plain.denoised(self["x", 0], self["F", 0], step.p, step.q)
