"""The program: a plan with its network and backend, and the one sampling loop. Nothing in it waits for the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from ..kernels.row import Backend, Weighted
from ..operators import Operator
from .bound import BESIDE, PREPARE, Bound
from .buffers import Buffers
from .clipping import clipped
from .jacobian import PRODUCTS
from .network import Network, NetworkRun
from .plan import Plan, Rule, Term
from .registers import Registers

__all__ = ["Callback", "Draw", "Program"]

Callback = Callable[[int, Tensor], object]

Draw = Callable[[Tensor, int], Tensor]
"""A function that fills a tensor with the noise of a number: 0 for the initial state, k + 1 for step k."""


class Need(NamedTuple):
    """The registers that a step has to fill, and its rules.

    Attributes:
        r, h, z, G: Whether the step fills these registers.
        tracked: Whether autograd records the network's evaluation.
        residual: The rules that write r.
        rules: The other rules.
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
        plan: The plan, with a note on the backend that runs each step.
        c_in: The scale of the network's input at every step, and 1 after the last one.
        needs: The ``Need`` of every step.
        products: The number of products h that all steps before each step take.
        layout: The structure of the plan without its numbers and times, which two programs must share for one captured
            graph to serve both. It is None where the loop holds more of the plan, so that a graph serves no other one.
    """

    def __init__(self, plan: Plan, network: Network, backend: Backend, operator: Operator) -> None:
        self.plan, self.network, self.backend = plan, network, backend
        self.c_in = [*(step.c_in for step in plan.steps), 1.0]
        self.product = PRODUCTS[plan.product]
        self.needs = [self._need(k) for k in range(len(plan.steps))]
        self.products = [0, *accumulate(need.h for need in self.needs)]
        self.needs_scratch = bool(self.product.evaluations) and any(need.h for need in self.needs)
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
        second = "G" in filled and not any("G" in (*rule.writes, *rule.keeps) for rule in rules)
        return Need("r" in filled, h, "z" in filled, second, h and self.product.graph, before, after)

    def _layout(self) -> tuple[Any, ...] | None:
        plan = self.plan
        shared = self.backend.device_table and not plan.noise_std and plan.clip is None
        for step in plan.steps:
            weight = step.weight if isinstance(step.weight, float) else None
            shared = shared and weight == 1.0 and not step.rules and all(term.is_number for term in step.row)
        if not shared:
            return None
        rows = tuple(tuple((*term.key, term.modes is None) for term in step.row) for step in plan.steps)
        return self.backend.name, plan.product, rows

    def bind(self, operator: Operator, like: Tensor, copies: int = 1) -> Bound:
        """The program on an operator, for states in the dtype and on the device of ``like``. It is made once for each.

        Args:
            operator: The operator.
            like: A tensor like the state.
            copies: The number of copies of the measurements in a batch, which follow each other.
        """
        key = like.dtype, self.network.dtype, like.device, copies
        with self._lock:
            bounds = self._bound.get(operator)
            if bounds is None:
                bounds = self._bound[operator] = {}
            if key not in bounds:
                with torch.inference_mode(False):  # Inference tensors could not serve a later derivative.
                    bounds[key] = Bound(self, operator, like, copies)
            return bounds[key]

    def run(
        self,
        network: NetworkRun,
        buffers: Buffers,
        bound: Bound,
        registers: Registers,
        draw: Draw,
        callback: Callback | None = None,
        first: int = 0,
    ) -> int:
        """Take ``buffers.state`` from the first time to the last, and return the number of steps that were taken.

        ``restoration`` has made the network's first input beside the first state.

        Args:
            network: The network on the batch of this run.
            buffers: The tensors to write to.
            bound: This program on the operator.
            registers: The registers, filled with ybar, with those that rules keep and, where ``first`` is not 0, with
                the earlier ones that the step reads.
            draw: A function that makes the noise of a step.
            callback: A function that is called as callback(k, x0hat). The run stops after step k if it returns True.
                A method ``step_end`` of it is called as step_end(k, state) with the state that step k has led to, which
                it may change in place. The run stops if it returns True.
            first: The step to begin with.
        """
        b, table, get, elements = buffers, buffers.table, registers.__getitem__, buffers.state.numel()
        ops, plain, dtype, chosen = registers.ops, registers.plain, None, []
        step_end = getattr(callback, "step_end", None)
        for k in range(first, len(self.needs)):
            step, need = self.plan.steps[k], self.needs[k]
            # A product that evaluates the network again needs copies, since the network may overwrite what it is given.
            again = need.h and self.product.evaluations
            leaf = b.input.detach().requires_grad_(need.tracked)
            with torch.set_grad_enabled(need.tracked):
                given = b.scratch.copy_(leaf) if again and b.scratch is not None else leaf
                output = network(given, b.given[k], need.G)
            if need.G:
                output, second = output.chunk(2, dim=1)
                registers["G", 0] = second.detach().clone() if again else second.detach()
            returned = output.untyped_storage().data_ptr() == leaf.untyped_storage().data_ptr()
            keeps = again or returned or "F" in b.depth
            F = b.copy_of("F", output.detach()) if keeps else output.detach()
            within = None if self.plan.clip is None else clipped(self.plan.clip, step, b.state, F)
            registers["x", 0], registers["F", 0] = b.state, F if within is None else within.output
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
                    alike = bound.spectral_weights[k]
                    weighted = None if weight is None or c is None else Weighted(weight, c, alike)
                    by.residual([*map(get, BESIDE)], step.p, step.q, r, weighted, numbers)
            if need.h:
                r, time = registers["r", 0], b.given[k].copy_(b.times[k]) if again else b.given[k]
                pulled = r if within is None else within.pulled(r)
                h = self.product.take(network, leaf, time, F if again else output, pulled, b.scratch)
                h = h if within is None else within.product(step, r, pulled, h)
                registers["h", 0] = b.copy_of("h", h) if "h" in b.depth and h.data_ptr() == r.data_ptr() else h
            if need.z and b.noise is not None:
                registers["z", 0] = draw(b.noise, k + 1)
            terms: list[Term] = []
            for rule in need.rules:
                terms += rule.fill(step, registers)
            stop = False
            if callback is not None:
                alone = None if within is None else within.estimate
                estimate = registers.estimate(step) if alone is None else alone.to(b.state.dtype)
                stop = is_true(callback(k, estimate))
            row, c_in, by = bound.rows[k], self.c_in[k + 1], ops if chosen[k].update else plain
            numbers = table and table.update[k]
            if terms:
                row = bound.row_with(k, terms)
                numbers = bound.numbers_of(row, c_in)
            by.update(row, [*map(get, row.registers)], b.spare, b.input, c_in, numbers)
            del output  # It would otherwise live through the next evaluation, where memory peaks.
            b.advance(registers)
            if step_end is not None:
                stop = is_true(step_end(k, b.state)) or stop
                plain.update(PREPARE, [b.state], b.spare, b.input, self.c_in[k + 1], None)
            if stop:
                return k + 1 - first
        return len(self.needs) - first


def is_true(answer: object) -> bool:
    """Whether the answer of a callback stops the run.

    Raises:
        TypeError: The answer is neither a truth value nor None.
    """
    if answer is None or isinstance(answer, bool | np.bool_):
        return bool(answer)
    if isinstance(answer, Tensor) and answer.dtype == torch.bool and answer.numel() == 1:
        return bool(answer)
    if isinstance(answer, np.ndarray) and answer.dtype == np.bool_ and answer.size == 1:
        return bool(answer.item())
    raise TypeError(f"callback: must return True to stop, False or None, got a {type(answer).__name__}")
