"""The Plan: a sampler written as a program, whose steps are rows of terms over named registers.

    x     the state                                   ybar  H+ y
    F     the network's output, x0hat = p x + q F     z     fresh unit noise
    r     the residual, H+ y - P x0hat                and what a rule keeps or writes beside them
    h     (dF/d(c_in x))^T r                          G     the second half of the output's channels, a learned variance

The values of x, F, r and h in earlier steps can be read, too: (register, age) is the value ``age`` steps ago. A term is

    a T                          where modes is None
    V diag(modes) V^T (a T)      otherwise; this is P (a T) for modes = 1

A step evaluates the network once, fills the registers that it or a later step reads, lets its rules act, and sets x' to
the sum of its terms. Solvers write plans, and have neither tensors nor a loop of their own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from .._clip import Clip, limits_of
from ..kernels.row import Key
from ..schedules import Array
from .spectrum import Spectrum

if TYPE_CHECKING:
    from .registers import Registers

__all__ = ["DEPTH", "Number", "Plan", "Rule", "Step", "Term"]

AGED, PRESENT = ("x", "F", "r", "h"), ("ybar", "z", "G")
"""The registers whose earlier values can be read, and those of which only the present value can."""

EVERY = frozenset((*AGED, *PRESENT))

DEPTH = 3
"""The largest age of a register."""

Number = float | Array | Tensor
"""A coefficient is a number, an array of the plan, or a tensor that a rule has computed on the device."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a row.

    Attributes:
        register: The name of the register.
        age: The number of steps since the register was filled.
        a: A number, or numbers for every image, (B,), or for every element, (C, H, W) or (B, C, H, W). Any dimension
            may be 1, and signals have (C, L) in place of (C, H, W).
        modes: None, or the factors by which the coordinates V^T (a T) are multiplied: a number, an array that
            broadcasts to the operator's singular values, or a ``Spectrum``, which is a function of them. A rule gives
            numbers or tensors, since a ``Spectrum`` would be moved to the device in every run.
    """

    register: str
    age: int = 0
    a: Number = 1.0
    modes: Number | Spectrum | None = None

    @property
    def key(self) -> Key:
        return self.register, self.age

    @property
    def is_number(self) -> bool:
        """Whether all coefficients of the term are numbers, which are the same on every operator."""
        return not np.ndim(self.a) and (self.modes is None or not isinstance(self.modes, Spectrum | np.ndarray))

    def __str__(self) -> str:
        name = f"{self.register}{self.age or ''}"
        number = f"{self.a:.5g}" if not np.ndim(self.a) else f"a{list(np.shape(self.a))}"
        if self.modes is None:
            return f"{number} {name}"
        if isinstance(self.modes, Spectrum):
            return f"V f V^T {name}" if number == "1" else f"V f V^T {number} {name}"
        return f"{number} P {name}" if np.ndim(self.modes) == 0 and self.modes == 1.0 else f"V m V^T {number} {name}"


class Rule(ABC):
    """The hook of a step: a rule writes registers, or gives terms whose coefficients are computed on the device.

    A rule must not wait for the device. It is given every number that it needs when the plan is made.

    Attributes:
        reads: The registers that ``fill`` reads.
        gives: The registers of the terms that ``fill`` returns.
        writes: The registers that ``fill`` writes. A rule that writes r makes the residual in place of H+ y - P x0hat.
            It runs before the product h is taken and gives no terms. Any other rule runs after all registers of the
            step are filled.
        keeps: Registers of the rule's own, which live from step to step and are changed in place. The first one begins
            as the mean of the initial state, mu apart, and the others begin as zero.
    """

    reads: tuple[Key, ...] = ()
    gives: tuple[Key, ...] = ()
    writes: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()

    @abstractmethod
    def fill(self, step: Step, registers: Registers) -> Iterable[Term]:
        """Write the registers of this rule, and return further terms of the row of ``step``."""


@dataclass(frozen=True, slots=True)
class Step:
    """A network evaluation and a row.

    Attributes:
        time: The schedule time at which the step begins.
        network_time: The time that is passed to the network.
        c_in: The scale of the network's input.
        p, q: The coefficients of x0hat = p x + q F.
        row: The terms of x'.
        weight: The weight of the residual, r = V diag(weight) V^T (H+ y - x0hat).
        rules: The rules, in the order in which they act.
        clip_q: The number in place of q by which a change of x0hat is divided where eps shall not follow from it.
    """

    time: float
    network_time: float
    c_in: float
    p: float
    q: float
    row: tuple[Term, ...]
    weight: float | Array | Spectrum = 1.0
    rules: tuple[Rule, ...] = ()
    clip_q: float | None = None

    @property
    def reads(self) -> frozenset[Key]:
        """Every register that this step reads, with its age."""
        keys = {term.key for term in self.row}
        return frozenset(keys.union(*((*rule.reads, *rule.gives) for rule in self.rules)))


@dataclass(frozen=True)
class Plan:
    """A program, which a solver writes once and the engine only reads.

    Attributes:
        solver: The solver that wrote the plan, for messages.
        steps: The steps, one for each evaluation of the network.
        times: The schedule times from first to last, (n + 1,).
        mu, sigma: The mean and standard deviation of the path at those times, (n + 1,).
        product: The way in which h is taken, a name in ``ccfast.engine.jacobian.PRODUCTS``.
        noise_std: The standard deviation of the measurement's noise in units of the data, which shrinks the initial
            state.
        clip: how x0hat is clipped before anything is made of it; ``ccfast.engine.clipping`` has the formulas.
        start_noise: The fraction of the noise with which the initial state begins, in [0, 1].
        kernels: what runs the row of each step and why, once a sampler has bound the plan; empty before.

    Raises:
        ValueError: an unknown register, a coefficient that is not finite, history used before there is any, or a
            ``start_noise`` below 1 where steps draw noise.
    """

    solver: str
    steps: tuple[Step, ...]
    times: Array
    mu: Array
    sigma: Array
    product: str = "reverse"
    noise_std: float = 0.0
    clip: Clip = None
    start_noise: float = 1.0
    kernels: tuple[str, ...] = field(default=(), compare=False)
    _reads: tuple[frozenset[Key], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if len(self.times) != len(self.steps) + 1:
            raise ValueError(f"times: must be one more than the {len(self.steps)} steps, got {len(self.times)}")
        object.__setattr__(self, "_reads", tuple(step.reads for step in self.steps))
        for k, step in enumerate(self.steps):
            own = {name for rule in step.rules for name in (*rule.writes, *rule.keeps)}
            for register, age in self._reads[k]:
                if age or register not in EVERY:
                    self._check_register(k, register, age, own)
            for rule in step.rules:
                if "r" in rule.writes and rule.gives:
                    raise ValueError(
                        f"row: a rule that writes r gives no terms, got {type(rule).__name__} with "
                        f"{', '.join(name for name, _ in rule.gives)} in step {k} of {self.solver}"
                    )
            for term in step.row:
                if not (type(term.a) is float and math.isfinite(term.a) and _is_settled(term.modes)):
                    self._check_finite(k, f"{term.register}{term.age or ''}", term.a, term.modes)
            if not _is_settled(step.weight):
                self._check_finite(k, "the residual's weight", step.weight)
        for column in (self.times, self.mu, self.sigma):
            column.setflags(write=False)
        self._check_start()

    def _check_start(self) -> None:
        if not 0.0 <= self.start_noise <= 1.0:
            raise ValueError(f"start_noise: must lie in [0, 1], got {self.start_noise}")
        if self.start_noise < 1.0 and (drawing := [k for k, reads in enumerate(self._reads) if ("z", 0) in reads]):
            why = " with noise in the measurement" * bool(self.noise_std)
            raise ValueError(
                f"start_noise: must be 1 where steps draw fresh noise, as step {drawing[0]} of {self.solver} does{why}"
                f": a run that begins with less has less than they assume and is no mean; got {self.start_noise}"
            )

    def _check_register(self, k: int, register: str, age: int, own: set[str]) -> None:
        name = f"{register}{age or ''}"
        if register not in (*AGED, *PRESENT) and register not in own:
            raise ValueError(
                f"row: step {k} of {self.solver} reads {name}, which no rule writes or keeps; the registers of every "
                f"plan are {', '.join((*AGED, *PRESENT))}"
            )
        if age and (register not in AGED or not 0 < age <= DEPTH):
            raise ValueError(f"row: {', '.join(AGED)} can be looked back at for 1 to {DEPTH} steps, got {name}")
        if age > k:
            raise ValueError(f"row: {name} does not exist before step {age}, got it in step {k} of {self.solver}")

    def _check_finite(self, k: int, name: str, *values: Number | Spectrum | None) -> None:
        for value in values:
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            if not _is_settled(value) and not np.all(np.isfinite(value)):  # type: ignore[arg-type]
                got = np.array2string(np.asarray(value), threshold=8)
                raise ValueError(
                    f"row: the coefficients of {name} must be finite, got {got} in step {k} of {self.solver}"
                )

    # ------------------------------------------------------------------------------------ what the engine asks
    def registers(self, k: int) -> frozenset[str]:
        """The registers that step k must fill, for itself and for later steps that read them."""
        filled = {
            register
            for later in range(k, min(k + DEPTH + 1, len(self.steps)))
            for register, age in self._reads[later]
            if age == later - k
        }
        return frozenset(filled | {"r"} if "h" in filled else filled)

    @property
    def depth(self) -> dict[str, int]:
        """The largest age at which a register is read, for every register that is read in a later step."""
        depth: dict[str, int] = {}
        for reads in self._reads:
            for register, age in reads:
                if age:
                    depth[register] = max(age, depth.get(register, 0))
        return depth

    @property
    def vjp_steps(self) -> int:
        """The number of steps that take a product with the network's Jacobian."""
        return sum("h" in self.registers(k) for k in range(len(self.steps)))

    @property
    def keeps(self) -> tuple[str, ...]:
        """The registers that rules keep from step to step."""
        return tuple(dict.fromkeys(name for step in self.steps for rule in step.rules for name in rule.keeps))

    @property
    def spectra(self) -> Iterator[Spectrum]:
        """All coefficients of the plan that are functions of the singular values."""
        for step in self.steps:
            for value in (step.weight, *(term.modes for term in step.row)):
                if isinstance(value, Spectrum):
                    yield value

    # ------------------------------------------------------------------------------------ what people ask
    def numbers(self, register: str, age: int = 0, projected: bool = False) -> Array:
        """The coefficient of a register, or of its projection, in every step, (n,). Only numbers count."""
        column = np.zeros(len(self.steps))
        for k, step in enumerate(self.steps):
            for term in step.row:
                if term.key == (register, age) and term.is_number and (term.modes is not None) == projected:
                    column[k] += np.asarray(term.a) * (1.0 if term.modes is None else np.asarray(term.modes))
        return column

    def explain(self) -> str:
        """The plan as a table and, once a sampler has bound it, the backend that runs each step and why."""
        if not self.kernels:
            return f"{self}\nnot bound yet: a Sampler decides which kernels run it"
        return "\n".join([str(self), *(f"step {k}: {what}" for k, what in enumerate(self.kernels))])

    def __str__(self) -> str:
        lines = [f"{self.solver}: {len(self.steps)} steps, t = {self.times[0]:g} to {self.times[-1]:g}"]
        if self.noise_std:
            lines[0] += f", noise_std {self.noise_std:g}"
        if self.start_noise != 1.0:
            lines[0] += f", from {self.start_noise:g} of the initial noise" if self.start_noise else ", from the mean"
        if self.clip is not None:
            limits = limits_of(self.clip)
            how = f"to {limits[0]:g} .. {limits[1]:g}" if isinstance(limits, tuple) else "by dynamic thresholding"
            lines[0] += f", x0hat clipped {how} by the reference"
        columns: dict[tuple[Key, bool], str] = {}
        for step in self.steps:
            for term in step.row:
                if term.is_number:
                    projected = term.modes is not None
                    columns.setdefault((term.key, projected), f"{'P ' * projected}{term.register}{term.age or ''}")
        names = ["t", "network t", "sigma", *columns.values()]
        lines.append("".join(f"{name:>12}" for name in names))
        numbers = [self.numbers(*key, projected) for key, projected in columns]
        for k, step in enumerate(self.steps):
            cells = [step.time, step.network_time, self.sigma[k], *(column[k] for column in numbers)]
            lines.append("".join(f"{cell:12.5g}" for cell in cells))
        lines += sorted({f"and {note}" for step in self.steps for note in _notes(step)})
        return "\n".join(lines)


def _is_settled(value: Number | Spectrum | None) -> bool:
    """Whether a coefficient is known to be finite without reading an array."""
    return value is None or isinstance(value, Spectrum) or (isinstance(value, float) and math.isfinite(value))


def _notes(step: Step) -> Iterator[str]:
    """Notes on the coefficients and rules of a step that are not numbers."""
    for term in step.row:
        name = f"{term.register}{term.age or ''}"
        if isinstance(term.modes, Spectrum):
            yield f"{name} with coefficients over {term.modes.describe()}"
        elif np.ndim(term.modes if term.modes is not None else 0.0):
            yield f"{name} with coefficients over the modes"
        if np.ndim(term.a):
            yield f"{name} with coefficients of every {'image' if np.ndim(term.a) == 1 else 'element'}"
    if isinstance(step.weight, Spectrum):
        yield f"residuals weighted over {step.weight.describe()}"
    for rule in step.rules:
        yield f"the rule {type(rule).__name__}"
