"""A plan bound to an operator: its rows as kernels take them, and which kernels run them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..kernels.row import Row
from ..operators import Operator
from .device_table import DeviceTable
from .graphs.exchange import MismatchError
from .plan import Number, Plan, Step, Term
from .spectrum import Modes, SpectralTable, Spectrum, distinct

if TYPE_CHECKING:
    from .program import Program

__all__ = ["Bound", "Chosen", "check_elements", "number_row", "residual_row"]

BESIDE = (("ybar", 0), ("x", 0), ("F", 0))
"""The registers that a residual reads."""

PREPARE = Row([(("x", 0), 1.0, None)])
"""The row that makes the network's first input from a given state."""


class Chosen(NamedTuple):
    """Whether the backend (or else the reference) runs the residual and the row of a step, and why, in words."""

    residual: bool
    update: bool
    words: str


class Bound:
    """The coefficients of a program on one operator, for states of one dtype on one device.

    It holds no reference to the operator, so that a cache with weak keys can keep it for as long as the operator lives.

    Attributes:
        rows: The row of every step. Rows with terms that rules give are made again in every run (``row_with``).
        residuals: The row of every residual whose weight is a number; None where the weight is 1 or a tensor.
        weights: The weight of every residual over the modes; None where it is a number.
        spectral_weights: Whether each of these is a function of the singular values.
        start: The row of the first state, from unit noise and the mean of the initial state, mu apart. That is H+ y
            where ``shrink`` is a number, which the row then has as a factor.
        shrink: The factors s^2/(s^2 + noise_std^2) over the modes, a number where all singular values are one number,
            or None without noise in the measurement.
        wants_coordinates: Whether a run needs encode(y).
        per_image: The number of images for which a register has coefficients, by register, where there are any.
        table: All numbers on the device, or None for a backend that does not read them there.
        network_times: The network time of every step on the device, (n,).
    """

    def __init__(self, program: Program, operator: Operator, like: Tensor, copies: int) -> None:
        plan = program.plan
        self.copies, self.network_times = copies, program.network_times
        self._steps, self._needs, self._backend = plan.steps, program.needs, program.backend
        self._input = program.network.dtype or like.dtype
        self._mask, self._dimensions = operator.kind == "mask", len(operator.shape)
        self._like, self._modes = like.new_empty(0), _modes(plan, operator)
        self._terms = [[self._term(term) for term in step.row] for step in plan.steps]
        self._spectral = [not any(map(is_array, (term.modes for term in step.row))) for step in plan.steps]
        self.rows = [Row(*each) for each in zip(self._terms, self._spectral, strict=True)]
        weights = [self._over_modes(step.weight) for step in plan.steps]
        self.weights = [weight if isinstance(weight, Tensor) else None for weight in weights]
        self.spectral_weights = [isinstance(step.weight, Spectrum) for step in plan.steps]
        self.residuals = [
            None if isinstance(weight, Tensor) or weight == 1.0 else residual_row(step, weight)
            for step, weight in zip(plan.steps, weights, strict=True)
        ]
        self.shrink = _shrink(operator, plan.noise_std, like) if plan.noise_std else None
        scale = self.shrink if isinstance(self.shrink, float) else 1.0
        noise = plan.start_noise * float(plan.sigma[0])
        self.start = Row([(("z", 0), noise, None), (("x", 0), scale * float(plan.mu[0]), None)])
        self.wants_coordinates = isinstance(self.shrink, Tensor) or any(w is not None for w in self.weights)
        self.per_image = {
            register: len(a)
            for terms in self._terms
            for (register, _), a, _ in terms
            if isinstance(a, Tensor) and a.ndim in (1, self._dimensions + 1) and len(a) > 1
        }
        self.table = self._table(program.c_in) if program.backend.device_table else None
        self._tables: dict[tuple[float, ...], Tensor] = {}
        self._chosen: dict[tuple[torch.dtype, int], list[Chosen]] = {}
        self._starts: dict[int, bool] = {}

    # ------------------------------------------------------------------------------------ coefficients
    def _term(self, term: Term) -> tuple[tuple[str, int], float | Tensor, float | Tensor | None]:
        a, modes = self._element(term.a), None if term.modes is None else self._over_modes(term.modes)
        if isinstance(modes, Tensor) and isinstance(term.modes, Spectrum):
            alike = self._modes[id(term.modes.table)].alike(term.modes)
            modes = modes if alike is None else alike
        if not isinstance(modes, Tensor):
            return term.key, a, modes
        if self._mask:  # The coordinates of a mask are the elements of the image.
            each = a.reshape(-1, *[1] * self._dimensions) if isinstance(a, Tensor) and a.ndim == 1 else a
            return term.key, each * modes, None
        return (term.key, a, modes) if isinstance(a, Tensor) else (term.key, 1.0, a * modes)

    def _element(self, a: float | np.ndarray | Tensor) -> float | Tensor:
        """A number as a float, and an array as a tensor like the state, repeated for every copy of the measurements."""
        if isinstance(a, Tensor):
            return a.to(self._like.dtype)
        if np.ndim(a) == 0:
            return float(a)
        value = torch.from_numpy(np.array(a, dtype=np.float64)).to(self._like)
        images = value.ndim in (1, self._dimensions + 1) and len(value) > 1
        return value.repeat(self.copies, *(1 for _ in value.shape[1:])) if images else value

    def _over_modes(self, modes: Number | Spectrum) -> float | Tensor:
        if isinstance(modes, Spectrum):
            return self._modes[id(modes.table)].of(modes, self._like)
        if isinstance(modes, Tensor):
            return modes.to(self._like.dtype)
        if np.ndim(modes) == 0:
            return float(modes)
        return torch.from_numpy(np.array(modes, dtype=np.float64)).to(self._like)

    def _table(self, c_in: Sequence[float]) -> DeviceTable:
        residuals = [
            [step.p, step.q] if row is None else row.values(1.0)
            for step, row in zip(self._steps, self.residuals, strict=True)
        ]
        return DeviceTable(
            self.start.values(c_in[0]),
            [PREPARE.values(c_in[k]) for k in (0, 1)],
            residuals,
            [row.values(c_in[k + 1]) for k, row in enumerate(self.rows)],
            self._like.device,
        )

    def row_with(self, k: int, terms: Sequence[Term]) -> Row:
        """The row of step k with the further terms that its rules give, whose coefficients are numbers or tensors.

        Raises:
            ValueError: A rule gives a term that its ``gives`` does not name, or coefficients that are a ``Spectrum``.
        """
        for term in terms:
            rules = [rule for rule in self._steps[k].rules if term.key in rule.gives]
            where = f"{term.register}{term.age or ''} in step {k}"
            if not rules:
                names = ", ".join(type(rule).__name__ for rule in self._steps[k].rules)
                raise ValueError(f"row: a rule names what it returns in gives, got a term of {where} from {names}")
            if isinstance(term.modes, Spectrum):
                names = ", ".join(type(rule).__name__ for rule in rules)
                raise ValueError(
                    f"row: a rule gives numbers and tensors over the modes, got a Spectrum for {where} from {names}"
                )
        spectral = self._spectral[k] and not any(isinstance(term.modes, Tensor) for term in terms)
        return Row([*self._terms[k], *map(self._term, terms)], spectral)

    def numbers_of(self, row: Row, c_in: float) -> Tensor | None:
        """The numbers of a row of ``row_with`` on the device, where those of equal rows stay."""
        if self.table is None:
            return None
        values = tuple(row.values(c_in))
        if values not in self._tables:
            self._tables[values] = torch.tensor(values, dtype=torch.float32, device=self._like.device)
        return self._tables[values]

    def tensors(self) -> Iterable[Tensor]:
        """All tensors of coefficients, in an order that depends on the plan alone."""
        for row, weight in zip(self.rows, self.weights, strict=True):
            yield from row.scales or ()
            for f, scale in row.modes:
                yield f
                if scale is not None:
                    yield scale
            if weight is not None:
                yield weight
        if isinstance(self.shrink, Tensor):
            yield self.shrink

    def become(self, other: Bound) -> None:
        """Overwrite the tensors of coefficients with those of the same plan on another operator.

        Raises:
            MismatchError: The tensors have other shapes.
        """
        own, given = list(self.tensors()), list(other.tensors())
        if [t.shape for t in own] != [t.shape for t in given]:
            raise MismatchError("operator: its modes are not those of the operator that a graph was captured with")
        for mine, theirs in zip(own, given, strict=True):
            mine.copy_(theirs)

    def check_batch(self, images: int) -> None:
        """Raise ValueError where coefficients are for another number of images than there are."""
        for name, count in self.per_image.items():
            if count != images:
                raise ValueError(f"row: {name} has coefficients for {count} images, got {images}")

    # ------------------------------------------------------------------------------------ kernels
    def chosen(self, operator: Operator, network: torch.dtype, elements: int) -> list[Chosen]:
        """Which backend runs each step, for a network's output of this dtype and so many elements in a batch."""
        key = network, elements
        found = self._chosen.get(key)
        if found is None:
            found = [self._choose(operator, k, network, elements) for k in range(len(self.rows))]
            self._chosen[key] = found
        return found

    def starts(self, operator: Operator, elements: int) -> bool:
        """Whether the backend makes the first state and the network's first input; the reference does otherwise."""
        if elements not in self._starts:
            self._starts[elements] = self.takes(operator, self.start, elements) is None
        return self._starts[elements]

    def takes(self, operator: Operator, row: Row, elements: int, *dtypes: torch.dtype) -> str | None:
        """Why the backend does not run a row on the states and inputs of this program, or None where it does."""
        return self._backend.takes(operator, row, (self._like.dtype, self._input, *dtypes), elements)

    def _choose(self, operator: Operator, k: int, network: torch.dtype, elements: int) -> Chosen:
        step, row, weight = self._steps[k], self.rows[k], self.weights[k]
        residual = residual_row(step, 1.0 if weight is None else weight, self.spectral_weights[k])
        why_residual = self.takes(operator, residual, elements, network)
        given = [Term(*key, a=self._like) for rule in step.rules for key in rule.gives]
        why_update = self.takes(operator, self.row_with(k, given), elements, network)
        name = f"{self._backend.name} {operator.kind}"
        words = [name if why_update is None else f"reference, since {why_update}"]
        words.append(f"{len(row.direct)} registers" + f", {len(row.modes)} over the modes" * bool(row.modes))
        if why_residual is not None and self._needs[k].r and not self._needs[k].residual:
            words.append(f"its residual by the reference, since {why_residual}")
        return Chosen(why_residual is None, why_update is None, "; ".join(words))


def is_array(modes: object) -> bool:
    """Whether coefficients over the modes are given one by one, and not as a function of the singular values."""
    return isinstance(modes, np.ndarray | Tensor) and np.ndim(modes) > 0


def number_row(step: Step) -> Row:
    """The row of a step whose coefficients are all numbers, which is the same on every operator."""
    terms = []
    for term in step.row:
        assert term.is_number, "the terms of this row are numbers alone"
        modes = None if term.modes is None else float(np.asarray(term.modes))
        terms.append((term.key, float(np.asarray(term.a)), modes))
    return Row(terms)


def residual_row(step: Step, weight: float | Tensor, spectral: bool = False) -> Row:
    """The residual as a row: w (ybar - P (p x + q F)), or V w V^T (ybar - p x - q F) for a weight over the modes."""
    ybar, x, output = BESIDE
    if isinstance(weight, Tensor):
        return Row([(ybar, 1.0, weight), (x, -step.p, weight), (output, -step.q, weight)], spectral)
    return Row([(ybar, weight, None), (x, -step.p, weight), (output, -step.q, weight)])


def _shrink(operator: Operator, noise_std: float, like: Tensor) -> Tensor | float | None:
    if operator.kind == "krylov":
        return None
    s, own = operator.singular_values, distinct(operator)
    if len(own) == 1:
        return float(1.0 / (1.0 + (noise_std / own[0]) ** 2))
    ratio = noise_std / s.where(s > 0, 1.0)
    return torch.where(s > 0, 1.0 / (1.0 + ratio.square()), 0.0).to(like)


def _modes(plan: Plan, operator: Operator) -> Mapping[int, Modes]:
    """The coefficients of a plan's tables on an operator, by the identity of the table."""
    tables: dict[int, SpectralTable] = {id(spectrum.table): spectrum.table for spectrum in plan.spectra}
    return {key: table.on(operator) for key, table in tables.items()}


def check_elements(plan: Plan, operator: Operator) -> Plan:
    """Return the plan if its coefficients fit the images and modes of the operator, and raise ValueError otherwise."""
    shape = (None, *operator.shape[1:]) if operator.any_channels else operator.shape
    for step in plan.steps:
        if isinstance(step.weight, np.ndarray):
            check_modes("the residual's weight", step.weight, operator)
        for term in step.row:
            if isinstance(term.modes, np.ndarray):
                check_modes(term.register, term.modes, operator)
            if isinstance(term.a, float):
                continue
            own = np.shape(term.a)[-len(shape) :]
            extra = np.ndim(term.a) - len(shape)
            misfit = any(n not in (1, want or n) for n, want in zip(own, shape, strict=False))
            if np.ndim(term.a) > 1 and (extra not in (0, 1) or misfit):
                raise ValueError(
                    f"row: {term.register} must have coefficients of shape (B,), (C, H, W) or (B, C, H, W) ((C, L) for "
                    f"signals), any dimension 1, to fit images {operator.shape}, got {np.shape(term.a)}"
                )
    return plan


def check_modes(name: str, modes: np.ndarray, operator: Operator) -> None:
    """Raise ValueError for an array that does not fit the modes of the operator."""
    own = np.shape(modes)
    if operator.kind == "krylov" and own:
        raise ValueError(
            f"row: {name} must have a number over the modes, since {operator!r} has no singular values, got shape {own}"
        )
    there = tuple(operator.singular_values.shape) if own else ()
    if len(own) > len(there) or any(n not in (1, m) and m != 1 for n, m in zip(own[::-1], there[::-1], strict=False)):
        raise ValueError(f"row: {name} must have coefficients that broadcast to the modes {there}, got shape {own}")
