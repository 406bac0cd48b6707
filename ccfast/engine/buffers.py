"""What the loop writes to, for one shape of batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .program import Program

__all__ = ["Buffers"]


class Buffers:
    """The tensors of one run at a time.

    States take turns in a ring as long as the plan looks back, and so do cotangents, which are made at the first step
    that needs them, in the dtype of the network's output (of its input, where the product is no reverse one). Outputs
    and products of earlier steps are kept as the network and autograd made them. Nothing is ever copied.

    Attributes:
        input: the network's input, None where the state itself serves (no scale, no other dtype).
        noise: where fresh noise goes; None without.
        scratch: for products that need one; None otherwise.
        times: (B,) network time of every step.
        table: the coefficients on the device, where the backend reads them there; None otherwise.
        slots: those of the plan's auxiliary; none without.
        past: the registers of earlier steps, by name (x1, F1, ...).
    """

    def __init__(self, program: Program, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        network, plan = program.network, program.plan
        device = network.device
        input_dtype = network.dtype or dtype
        time_dtype = torch.float64 if input_dtype == torch.float64 else torch.float32
        like = {"dtype": dtype, "device": device}
        self.depth = plan.depth()
        self.states = [torch.empty(shape, **like) for _ in range(2 + self.depth.get("x", 0))]
        scaled = any(c != 1.0 for c in program.c_in)
        self.input = torch.empty(shape, dtype=input_dtype, device=device) if scaled or input_dtype != dtype else None
        self.noise = torch.empty_like(self.state) if program.uses("z") else None
        self.scratch = torch.empty(shape, dtype=input_dtype, device=device) if program.needs_scratch else None
        self.cotangents: list[Tensor | None] = [None] * (1 + self.depth.get("r", 0))
        slots = plan.auxiliary.slots if plan.auxiliary is not None else 0
        self.slots = [torch.empty(shape, **like) for _ in range(slots)]
        self.past: dict[str, Tensor] = {}
        self._times = torch.empty((plan.steps, shape[0]), dtype=time_dtype, device=device)
        self.times = list(self._times)
        self._values, self.table = None, None
        if program.table is not None:
            self._values = torch.empty_like(program.table.values)
            self.table = program.table.views(self._values)
        self.load(program)

    def load(self, program: Program) -> None:
        """Take over the times and coefficients of a program whose rows have the same terms."""
        self._times.copy_(program.network_times[:, None])
        if self._values is not None and program.table is not None:
            self._values.copy_(program.table.values)

    @property
    def state(self) -> Tensor:
        return self.states[0]

    @property
    def spare(self) -> Tensor:
        """Where the next state goes."""
        return self.states[-1]

    @property
    def cotangent(self) -> Tensor | None:
        return self.cotangents[0]

    def cotangent_like(self, tensor: Tensor) -> Tensor:
        """The present cotangent, remade if it has not the dtype of ``tensor``."""
        own = self.cotangents[0]
        if own is None or own.dtype != tensor.dtype:
            own = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
            self.cotangents[0] = own
        return own

    def begin(self, states: tuple[Tensor, ...]) -> None:
        """Start from the state at the first time, or from those at the first two times."""
        for own, given in zip(self.states, reversed(states), strict=False):
            own.copy_(given)
        self.past = {f"x{age}": self.states[age] for age in range(1, len(states))}

    def begin_slots(self, mean: Tensor) -> None:
        """The slots before the first step: the mean of the initial state, and zeros."""
        for own in self.slots:
            own.zero_()
        self.slots[0].copy_(mean)

    def advance(self, registers: dict[str, Tensor]) -> None:
        """The spare becomes the state, and the registers of this step the youngest of the past."""
        self.states.insert(0, self.states.pop())
        if not self.depth:
            return
        self.cotangents.insert(0, self.cotangents.pop())
        for name, depth in self.depth.items():
            for age in range(depth, 1, -1):
                if f"{name}{age - 1}" in self.past:
                    self.past[f"{name}{age}"] = self.past[f"{name}{age - 1}"]
            if name in registers:
                self.past[f"{name}1"] = registers[name]

    @property
    def bytes(self) -> int:
        tensors = (*self.states, *self.cotangents, self.input, self.noise, self.scratch, *self.slots, self._times)
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)
