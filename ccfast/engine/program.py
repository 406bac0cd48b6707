"""The engine: the one sampling loop, on preallocated buffers, with nothing in it that waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..kernels import reference
from ..kernels.reference import Ops
from ..operators import Operator
from .buffers import Buffers
from .device_table import Table
from .elements import cast_elements, check_batch
from .graphs.exchange import MismatchError
from .jacobian import PRODUCTS, Evaluation
from .network import Network
from .plan import Plan, parse

__all__ = ["Buffers", "Measurement", "Program"]

Callback = Callable[[int, Tensor], object]

PREPARE = {"x": 1.0}
"""The row that makes the network's first input from a given state."""


@dataclass(frozen=True)
class Measurement:
    """A measurement as the loop sees it.

    Attributes:
        ops: the backend's operations, bound to its operator.
        rich: operations that know every row: the backend's where it has ``RICH_ROWS``, else the reference's.
        ybar: H+ y.
        coordinates: encode(y), where the plan has fields or the measurement is noisy.
        shrink: s^2/(s^2 + noise_std^2) over the modes of the operator, where the measurement is noisy.
        fields: those of each step, over the modes of the operator; empty without.
        rule: the plan's own rule for r, of x0hat, for this operator and measurement; None: r = H+ y - P x0hat.
        auxiliary: the plan's rule for u, as auxiliary(k, registers, slots); None: there is no u.
        elements: coefficients of every element in each step, by term, those of the whole image added; empty without.
    """

    ops: Ops
    rich: Ops
    ybar: Tensor
    coordinates: Tensor | None = None
    shrink: Tensor | None = None
    fields: Sequence[dict[str, Tensor]] = ()
    rule: Callable[[Tensor], Tensor] | None = None
    auxiliary: Callable[[int, dict[str, Tensor], list[Tensor]], None] | None = None
    elements: Sequence[dict[str, Tensor]] = ()


class Program:
    """A plan bound to a network and a backend: the loop's coefficients as plain numbers.

    Attributes:
        table: the same numbers on the device, for a backend that reads them there (its ``DEVICE_TABLE`` is true).
        layout: what two programs must share for one captured graph to serve both, coefficients and times apart; None
            where the loop holds numbers of the plan itself, so that a graph serves this program alone.
    """

    def __init__(self, plan: Plan, network: Network, backend: ModuleType) -> None:
        self.plan, self.network, self.backend = plan, network, backend
        self.c_in = [*map(float, plan.c_in), 1.0]
        self.p, self.q = plan.p.tolist(), plan.q.tolist()
        self.rows = [{name: a * self.scale(name, k) for name, a in row.items()} for k, row in enumerate(plan.rows())]
        self.needs = [plan.registers(k) for k in range(plan.steps)]
        # rows of numbers alone; the others are for what knows every row
        self.common = [
            (plan.fields is None or not plan.fields.names(k))
            and (plan.reduction is None or k < plan.reduction.first)
            and not any(column[k].any() for column in plan.elements.values())
            for k in range(plan.steps)
        ]
        self.product = PRODUCTS[plan.product]
        self.needs_vjp = ["h" in needs for needs in self.needs]
        self.tracks = [needs and self.product.graph for needs in self.needs_vjp]
        self.needs_scratch = self.product.scratch and any(self.needs_vjp)
        self.start_row = {"z": float(plan.sigma[0]), "x": float(plan.mu[0])}
        self.network_times = torch.tensor(plan.network_times, device=network.device)
        self.table = None
        if getattr(backend, "DEVICE_TABLE", False):
            self.table = Table(self.start_row, PREPARE, self.rows, self.p, self.q, self.c_in, network.device)
        self.layout = self._layout()
        self._fields: WeakKeyDictionary[Operator, dict[Any, Any]] = WeakKeyDictionary()
        self._elements: dict[Any, list[dict[str, Tensor]]] = {}
        self._lock = Lock()

    def scale(self, name: str, k: int) -> float:
        """The network is differentiated with respect to its scaled input: h = c_in times that, of h's own step."""
        register, age, _ = parse(name)
        return self.c_in[k - age] if register == "h" else 1.0

    def _layout(self) -> tuple[Any, ...] | None:
        own_numbers = (
            self.table is None
            or not all(self.common)
            or self.plan.noise_std
            or any(part is not None for part in (self.plan.fields, self.plan.residual, self.plan.auxiliary))
        )
        if own_numbers:
            return None
        scaled = any(c != 1.0 for c in self.c_in)
        return self.backend.__name__, self.plan.product, scaled, tuple(tuple(row) for row in self.rows)

    def uses(self, register: str) -> bool:
        return any(register in needs for needs in self.needs)

    def measure(self, operator: Operator, y: Tensor, copies: int = 1) -> Measurement:
        """What the loop needs of a measurement, of which the batch y holds so many copies one after the other."""
        ops, ybar = self.backend.bind(operator), operator.pinv(y)
        rich = ops if getattr(self.backend, "RICH_ROWS", False) else reference.bind(operator)
        elements = self._elements_on(ybar, copies) if self.plan.elements else ()
        rule = None if self.plan.residual is None else partial(self.plan.residual, operator, y)
        auxiliary = None if self.plan.auxiliary is None else partial(self.plan.auxiliary.take, operator, y)
        if operator.kind == "krylov" or (self.plan.fields is None and not self.plan.noise_std):
            return Measurement(ops, rich, ybar, rule=rule, auxiliary=auxiliary, elements=elements)
        shrink, fields = self.modes(operator, y)
        return Measurement(ops, rich, ybar, operator.encode(y), shrink, fields, rule, auxiliary, elements)

    def modes(self, operator: Operator, like: Tensor) -> tuple[Tensor | None, list[dict[str, Tensor]]]:
        """``shrink`` and ``fields`` of a ``Measurement``, made once for an operator."""
        with self._lock:
            cache = self._fields.setdefault(operator, {})
            key = (like.dtype, like.device)
            if key not in cache:
                with torch.inference_mode(False):
                    cache[key] = self._on(operator, like)
            return cache[key]

    def exchange_modes(self, own: Operator, other: Operator, like: Tensor) -> None:
        """Overwrite the ``modes`` of one operator, where it has them, with another's; MismatchError for a misfit."""
        with self._lock:
            known = (like.dtype, like.device) in self._fields.get(own, {})
        if not known:
            return
        (shrink, fields), (given, others) = self.modes(own, like), self.modes(other, like)
        pairs = [] if shrink is None or given is None else [(shrink, given)]
        for mine, theirs in zip(fields, others, strict=False):
            pairs += [(mine[name], theirs[name]) for name in mine.keys() & theirs.keys()]
        fits = [f.keys() for f in fields] == [f.keys() for f in others]
        if not fits or any(a.shape != b.shape for a, b in pairs):
            raise MismatchError(f"operator: the fields of {other!r} are not over the modes of {own!r}")
        for mine, theirs in pairs:
            mine.copy_(theirs)

    def _on(self, operator: Operator, like: Tensor) -> tuple[Tensor | None, list[dict[str, Tensor]]]:
        """What the plan has over the modes of an operator, in the dtype and on the device of ``like``."""
        shrink, fields = None, []
        if self.plan.noise_std:
            s = operator.singular_values
            ratio = self.plan.noise_std / s.where(s > 0, 1.0)
            shrink = torch.where(s > 0, 1.0 / (1.0 + ratio.square()), 0.0).to(like)
        if self.plan.fields is not None:
            for k, row in enumerate(self.plan.fields.on(operator, like)):
                fields.append({name: f if name == "weight" else f * self.scale(name, k) for name, f in row.items()})
        return shrink, fields

    def _elements_on(self, like: Tensor, copies: int) -> list[dict[str, Tensor]]:
        """The coefficients of every element of each step for a batch like this, those of the whole image added."""
        key = (like.dtype, like.device, copies)
        with self._lock:
            if key not in self._elements:
                columns = self.plan.elements.items()
                rows = [
                    {name: c[k] * self.scale(name, k) for name, c in columns if c[k].any()}
                    for k in range(self.plan.steps)
                ]
                self._elements[key] = cast_elements(rows, self.rows, like, copies)
            elements = self._elements[key]
        check_batch(elements, like)
        return elements

    def start(self, b: Buffers, m: Measurement, mean: Tensor, draw_noise: Callable[[Tensor, int], object]) -> None:
        """``b.state`` = mu mean + sigma noise at the first time."""
        draw_noise(b.spare, 0)
        tensors = {"z": b.spare, "x": mean}
        m.ops.update(self.start_row, tensors, b.state, None, 1.0, **_from(b.table and b.table.start))

    def run(
        self,
        buffers: Buffers,
        measurement: Measurement,
        draw_noise: Callable[[Tensor, int], object],
        callback: Callback | None = None,
        first: int = 0,
    ) -> int:
        """Take ``buffers.state`` from the first time to the last; returns the number of steps taken.

        Args:
            draw_noise: fills a tensor with the noise of a step (k + 1 at step k).
            callback: called as callback(k, x0hat); stops the run after step k when it returns True.
            first: the step to begin with; the registers it looks back at are then in ``buffers.past``.
        """
        b, m = buffers, measurement
        if first == 0:
            b.past.clear()
        if b.input is not None:
            table = _from(b.table and b.table.prepare[first])
            m.ops.update(PREPARE, {"x": b.state}, b.spare, b.input, self.c_in[first], **table)
        for k in range(first, self.plan.steps):
            needs, tracked, x = self.needs[k], self.tracks[k], b.state
            leaf = (x if b.input is None else b.input).detach().requires_grad_(tracked)
            with torch.set_grad_enabled(tracked):
                output = self.network(leaf, b.times[k])
            tensors = {**b.past, "x": x, "F": output.detach(), "ybar": m.ybar}
            if "F" in b.depth:
                tensors["F"] = own(tensors["F"], leaf)
            if "r" in needs:
                tensors["r"] = b.cotangent_like(output if self.product.graph else leaf)
                self.residual(k, tensors, b, m)
            if "h" in needs:
                taken = Evaluation(leaf, b.times[k], output, tensors["r"])
                tensors["h"] = self.product.take(self.network, taken, b.scratch)
                del taken
            if b.noise is not None and "z" in needs:
                tensors["z"] = b.noise
                draw_noise(b.noise, k + 1)
            if m.auxiliary is not None:
                m.auxiliary(k, tensors, b.slots)
                tensors["u"] = b.slots[0]
            stop = callback is not None and callback(k, m.ops.denoised(x, tensors["F"], self.p[k], self.q[k]))
            self.update(k, tensors, b, m)
            b.advance(tensors)
            del output, tensors  # or they would live through the next evaluation, where memory peaks
            if stop is True:
                return k + 1 - first
        return self.plan.steps - first

    def residual(self, k: int, tensors: dict[str, Tensor], b: Buffers, m: Measurement) -> None:
        if m.rule is not None:
            tensors["r"].copy_(m.rule(m.ops.denoised(tensors["x"], tensors["F"], self.p[k], self.q[k])))
            return
        weight = m.fields[k].get("weight") if m.fields else None
        arguments = (tensors["x"], tensors["F"], m.ybar, self.p[k], self.q[k], tensors["r"])
        if weight is None:
            m.ops.residual(*arguments, **_from(b.table and b.table.residual[k]))
        else:
            m.rich.residual(*arguments, weight, m.coordinates)

    def update(self, k: int, tensors: dict[str, Tensor], b: Buffers, m: Measurement) -> None:
        """The row of step k; what a backend may not know goes to one that knows every row."""
        if self.common[k]:
            table = _from(b.table and b.table.update[k])
            return m.ops.update(self.rows[k], tensors, b.spare, b.input, self.c_in[k + 1], **table)
        fields = {name: f for name, f in m.fields[k].items() if name != "weight"} if m.fields else {}
        row: dict[str, float | Tensor] = {**self.rows[k], **(m.elements[k] if m.elements else {})}
        return m.rich.update(self.reduced(k, row, tensors), tensors, b.spare, b.input, self.c_in[k + 1], fields)

    def reduced(self, k: int, row: dict[str, float | Tensor], tensors: dict[str, Tensor]) -> dict[str, float | Tensor]:
        """The row of step k with the coefficients that the images of this batch ask for."""
        reduction = self.plan.reduction
        if reduction is None or k < reduction.first:
            return row
        vectors = {}
        for name, columns in reduction.vectors.items():
            vector = {term: float(c[k]) * self.scale(term, k) for term, c in columns.items() if c[k] != 0}
            if vector:
                vectors[name] = reference.combine(vector, tensors)
        dots = {
            name: reference.dot(vectors[a], vectors[b])
            for name, (a, b) in reduction.dots.items()
            if a in vectors and b in vectors
        }
        for name, value in reduction.coefficients(k, dots).items():
            if name in reduction.terms:
                row[name] = plus(value * self.scale(name, k), row.get(name, 0.0), tensors["x"])
        return row


def plus(value: Tensor, other: float | Tensor, like: Tensor) -> Tensor:
    """Coefficients of every image, plus a number or those of every element."""
    return reference.per_image(value, like) + other if isinstance(other, Tensor) else value + other


def _from(table: Tensor | None) -> dict[str, Tensor]:
    """The argument of a backend that reads its coefficients on the device."""
    return {} if table is None else {"table": table}


def own(output: Tensor, leaf: Tensor) -> Tensor:
    """An output to be kept: a copy where it lies in the network's input, which the next step overwrites."""
    return output.clone() if output.data_ptr() == leaf.data_ptr() else output
