"""The registers of a run, which the terms of rows and the rules of a plan read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ..kernels.row import Key, Ops
from ..operators import Operator

if TYPE_CHECKING:
    from .plan import Step

__all__ = ["Registers"]


class Registers(dict[Key, Tensor]):
    """The tensors of a run by (register, age).

    Attributes:
        operator, measurement: The operator H and the measurement y.
        coordinates: The coordinates encode(y), or None where neither the plan nor its initial state needs them.
        ops, plain: The operations of the backend and those of the reference, bound to the operator.
    """

    def __init__(self, operator: Operator, measurement: Tensor, ops: Ops, plain: Ops) -> None:
        super().__init__()
        self.operator, self.measurement = operator, measurement
        self.ops, self.plain = ops, plain
        self.coordinates: Tensor | None = None

    def estimate(self, step: Step) -> Tensor:
        """The estimate x0hat = p x + q F of this step, a new tensor."""
        return self.plain.denoised(self["x", 0], self["F", 0], step.p, step.q)
