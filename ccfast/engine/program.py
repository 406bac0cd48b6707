"""The program: a plan with its network and backend, and the one sampling loop. Nothing in it waits for the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..kernels.row import Backend
from ..operators import Operator
from .bound import BESIDE, PREPARE, Bound
from .buffers import Buffers
from .clipping import clipped
from .jacobian import PRODUCTS
from .network import Network
from .plan import Plan, Rule, Term
from .registers import Registers

__all__ = ["Callback", "Draw", "Program"]

Callback = Callable[[int, Tensor], object]

Draw = Callable[[Tensor, int], Tensor]
"""Fills a tensor with the noise of a step: 0 for the initial state, k + 1 for step k."""


class Need(NamedTuple):
    """What a step has to fill.

    Attributes:
        r, h, z, G: whether it fills these registers.
        tracked: whether the network's evaluation is recorded for a derivative.
        residual: the rules that write r.
        rules: the others.
    """

    r: bool
    h: bool
    z: bool
    G: bool
    tracked: bool
    residual: tuple[Rule, ...]
    rules: tuple[Rule, ...]


class Program:
    """A plan with a network and a backend.

    Attributes:
        plan: what it runs, with a word on who runs each step.
        c_in: scale of the network's input at every step, and 1 after the last.
        needs: of every step.
        products: how many products h the steps before each take.
        layout: what two programs must share for one captured graph to serve both, numbers and times apart; None where
            the loop holds what belongs to the plan alone, so that a graph serves this program alone.
    """

    def __init__(self, plan: Plan, network: Network, backend: Backend, operator: Operator) -> None:
        self.plan, self.network, self.backend = plan, network, backend
        self.c_in = [*(step.c_in for step in plan.steps), 1.0]
        self.scaled = any(c != 1.0 for c in self.c_in)
        self.product = PRODUCTS[plan.product]
        self.needs = [self._need(k) for k in range(len(plan.steps))]
        self.products = [0, *accumulate(need.h for need in self.needs)]
        self.needs_scratch = self.product.scratch and any(need.h for need in self.needs)
        times = [step.network_time for step in plan.steps]
        self.network_times = torch.tensor(times, dtype=torch.float64, device=network.device)
        self.layout = self._layout()
        self._bound: WeakKeyDictionary[Operator, dict[Any, Bound]] = WeakKeyDictionary()
        self._lock = Lock()
        like = torch.empty(0, dtype=torch.float32, device=network.device)
        output = network.autocast or network.dtype or like.dtype
        elements = torch.Size(operator.shape).numel()
        kernels = [step.words for step in self.bind(operator, like).chosen(operator, output, elements)]
        self.plan = replace(plan, kernels=tuple(kernels))

    def _need(self, k: int) -> Need:
        filled, rules = self.plan.registers(k), self.plan.steps[k].rules
        h = "h" in filled
        before = tuple(rule for rule in rules if "r" in rule.writes)
        after = tuple(rule for rule in rules if "r" not in rule.writes)
        return Need("r" in filled, h, "z" in filled, "G" in filled, h and self.product.graph, before, after)

    def _layout(self) -> tuple[Any, ...] | None:
        plan = self.plan
        shared = self.backend.device_table and not plan.noise_std and plan.clip is None
        for step in plan.steps:
            weight = step.weight if isinstance(step.weight, float) else None
            shared = shared and weight == 1.0 and not step.rules and all(term.is_number for term in step.row)
        if not shared:
            return None
        rows = tuple(tuple((*term.key, term.modes is None) for term in step.row) for step in plan.steps)
        return self.backend.name, plan.product, self.scaled, rows

    def bind(self, operator: Operator, like: Tensor, copies: int = 1) -> Bound:
        """The program on an operator, for states in the dtype and on the device of ``like``; made once for each.

        Args:
            copies: how many copies of the measurements a batch holds, one after the other.
        """
        key = like.dtype, like.device, copies
        with self._lock:
            bounds = self._bound.get(operator)
            if bounds is None:
                bounds = self._bound[operator] = {}
            if key not in bounds:
                with torch.inference_mode(False):  # a tensor made there could not serve a later derivative
                    bounds[key] = Bound(self, operator, like, copies)
            return bounds[key]

    def run(
        self,
        buffers: Buffers,
        bound: Bound,
        registers: Registers,
        draw: Draw,
        callback: Callback | None = None,
        first: int = 0,
    ) -> int:
        """Take ``buffers.state`` from the first time to the last; returns the number of steps taken.

        Args:
            registers: with ybar, what rules keep and, where ``first`` is not 0, the registers that it looks back at.
            draw: makes the noise of a step.
            callback: called as callback(k, x0hat); stops the run after step k when it returns True.
            first: the step to begin with.
        """
        b, table, get, elements = buffers, buffers.table, registers.__getitem__, buffers.state.numel()
        ops, plain, dtype, chosen = registers.ops, registers.plain, None, []
        if b.input is not None:
            by = ops if bound.starts(registers.operator, elements) else plain
            by.update(PREPARE, [b.state], b.spare, b.input, self.c_in[first], table and table.prepare[first])
        for k in range(first, len(self.needs)):
            step, need = self.plan.steps[k], self.needs[k]
            leaf = (b.state if b.input is None else b.input).detach().requires_grad_(need.tracked)
            with torch.set_grad_enabled(need.tracked):
                output = self.network(leaf, b.times[k], need.G)
            if need.G:
                output, registers["G", 0] = output.chunk(2, dim=1)[0], output.detach().chunk(2, dim=1)[1]
            registers["x", 0], registers["F", 0] = b.state, output.detach()
            if "F" in b.depth and output.data_ptr() == leaf.data_ptr():
                registers["F", 0] = output.detach().clone()  # it lies in the input, which the next step overwrites
            within = None if self.plan.clip is None else clipped(self.plan.clip, step, b.state, registers["F", 0])
            if within is not None:
                registers["F", 0] = within.output
            if output.dtype is not dtype:
                dtype, chosen = output.dtype, bound.chosen(registers.operator, output.dtype, elements)
            if need.r:
                r, wanted = b.cotangents[0], (output if self.product.graph else leaf).dtype
                if r is None or r.dtype != wanted:
                    r = b.cotangent_like(output if self.product.graph else leaf)
                registers["r", 0] = r
                numbers, row, by = table and table.residual[k], bound.residuals[k], ops if chosen[k].residual else plain
                if need.residual:
                    for rule in need.residual:
                        rule.fill(step, registers)
                elif row is not None:
                    by.update(row, [*map(get, BESIDE)], r, None, 1.0, numbers)
                else:
                    weight, c = bound.weights[k], registers.coordinates
                    weighted = None if weight is None or c is None else (weight, c)
                    by.residual([*map(get, BESIDE)], step.p, step.q, r, weighted, numbers)
            if need.h:
                r = registers["r", 0]
                pulled = r if within is None else within.pulled(r)
                h = self.product.take(self.network, leaf, b.times[k], output, pulled, b.scratch)
                registers["h", 0] = h if within is None else within.product(step, r, pulled, h)
            if need.z and b.noise is not None:
                registers["z", 0] = draw(b.noise, k + 1)
            terms: list[Term] = []
            for rule in need.rules:
                terms += rule.fill(step, registers)
            stop = callback is not None and callback(k, registers.estimate(step))
            row = bound.row_with(k, terms) if terms else bound.rows[k]
            numbers = table and table.update[k]
            by = ops if chosen[k].update else plain
            by.update(row, [*map(get, row.registers)], b.spare, b.input, self.c_in[k + 1], numbers)
            del output  # or it would live through the next evaluation, where memory peaks
            b.advance(registers)
            if stop is True:
                return k + 1 - first
        return len(self.needs) - first
