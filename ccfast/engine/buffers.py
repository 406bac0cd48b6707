"""The tensors that the loop writes to, for one shape of batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .registers import Registers

if TYPE_CHECKING:
    from .bound import Bound
    from .program import Program

__all__ = ["Buffers"]


class Buffers:
    """The tensors of a run. They serve one run at a time.

    States take turns in a ring, which is as long as the plan looks back. So do cotangents (the residuals that products
    are taken with), which are made at the first step that needs them, in the dtype of the network's output, or of its
    input where the product is not in reverse mode. The network gets an input of its own, which it may overwrite, and
    its output is valid until its next call. An output that a later step or evaluation reads is copied into a ring, too.

    Attributes:
        state, spare: The present state, and the tensor that the next one is written to.
        input: The network's input.
        noise: The tensor for fresh noise; None where the plan has none.
        scratch: A tensor for products that evaluate the network again; None where there are none.
        times: The network time of every step, (n, B).
        given: A copy of these, which the network may overwrite; every run makes it anew.
        table: The numbers on the device; None for a backend that does not read them there.
        kept: The registers that rules keep, by name.
    """

    def __init__(self, program: Program, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        network, plan = program.network, program.plan
        device = network.device
        input_dtype = network.dtype or dtype
        time_dtype = torch.float64 if input_dtype == torch.float64 else torch.float32
        like = {"dtype": dtype, "device": device}
        self.depth = plan.depth
        self.states = [torch.empty(shape, **like) for _ in range(2 + self.depth.get("x", 0))]
        self.state, self.spare = self.states[0], self.states[-1]
        self.input = torch.empty(shape, dtype=input_dtype, device=device)
        self.noise = torch.empty_like(self.state) if any(need.z for need in program.needs) else None
        self.scratch = torch.empty(shape, dtype=input_dtype, device=device) if program.needs_scratch else None
        self.cotangents: list[Tensor | None] = [None] * (1 + self.depth.get("r", 0))
        self._copies: dict[str, list[Tensor | None]] = {
            name: [None] * (1 + self.depth.get(name, 0)) for name in ("F", "h")
        }
        self.kept = {name: torch.empty(shape, **like) for name in plan.keeps}
        self.times = torch.empty((len(plan.steps), shape[0]), dtype=time_dtype, device=device)
        self.given = torch.empty_like(self.times)
        self._values, self.table = None, None
        self._loaded: Bound | None = None

    def load(self, bound: Bound) -> None:
        """Copy the times and numbers of a bound program, whose rows must have the same layout."""
        if self._loaded is bound:
            return
        self.times.copy_(bound.network_times[:, None])
        if bound.table is not None:
            if self._values is None:
                self._values = torch.empty_like(bound.table.values)
                self.table = bound.table.views(self._values)
            self._values.copy_(bound.table.values)
        self._loaded = bound

    @property
    def cotangent(self) -> Tensor | None:
        return self.cotangents[0]

    def cotangent_like(self, tensor: Tensor) -> Tensor:
        """Make and return the present cotangent anew, in the shape and dtype of ``tensor``."""
        self.cotangents[0] = own = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        return own

    def copy_of(self, name: str, tensor: Tensor) -> Tensor:
        """A copy of a network's output or of a product, valid as long as the plan looks back at it."""
        ring = self._copies[name]
        own = ring[0]
        if own is None or own.dtype != tensor.dtype:
            own = ring[0] = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        return own.copy_(tensor)

    def begin(self, states: tuple[Tensor, ...]) -> None:
        """Start from the state at the first time, or from the states at the first two times, the earlier one first."""
        for own, given in zip(self.states, reversed(states), strict=False):
            own.copy_(given)

    def begin_kept(self, mean: Tensor) -> None:
        """Set the kept registers for the first step: the first to the mean of the initial state, the others to zero."""
        for place, own in enumerate(self.kept.values()):
            own.zero_() if place else own.copy_(mean)

    def advance(self, registers: Registers) -> None:
        """Make the spare the state, and every register of this step one step older. What nothing reads is dropped."""
        self.states.insert(0, self.states.pop())
        self.state, self.spare = self.states[0], self.states[-1]
        for ring in (self.cotangents, *self._copies.values()):
            ring.insert(0, ring.pop())
        for name in ("x", "F", "r", "h"):
            for age in range(self.depth.get(name, 0), 0, -1):
                if (name, age - 1) in registers:
                    registers[name, age] = registers[name, age - 1]
            # A register that stayed here would live through the next evaluation, where memory use is highest.
            registers.pop((name, 0), None)

    @property
    def bytes(self) -> int:
        own = (self.input, self.noise, self.scratch, self.times, self.given)
        rings = (*self.cotangents, *self._copies["F"], *self._copies["h"])
        tensors = (*self.states, *rings, *self.kept.values(), *own)
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)
