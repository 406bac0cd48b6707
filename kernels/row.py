"""A row of a plan as kernels take it, and the protocol of a backend, which binds ``Ops`` to an operator.

    out = sum_k c_k a_k T_k + P sum_k c_k b_k T_k + V sum_j f_j V^T (c_j T_j),        next = c_in out

T_k and T_j are the tensors that a row is called with, and a_k and b_k are numbers. c_k is 1 or a tensor, which holds a
number for every image, (B,), or for every element, (C, H, W) or (B, C, H, W) where any dimension may be 1. The columns
of V are the right singular vectors of the operator, its modes, and f_j is a tensor with a number for every mode.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..operators import Operator

__all__ = ["Backend", "Key", "Ops", "Row", "Weighted", "outside", "refuse_gradients"]

Key = tuple[str, int]
"""A register and its age in steps: ("x", 0) is the state, ("F", 2) is the network's output of two steps ago."""

HALVES_AND_SINGLE = frozenset((torch.float32, torch.bfloat16, torch.float16))
"""The dtypes that compiled kernels read. They sum in float32."""


class Row:
    """The terms of a row, sorted by how a kernel takes them.

    Args:
        terms: Triples (register, a, modes) of a register, and numbers or tensors. A triple means a T where modes is
            None, and V diag(modes) V^T (a T) otherwise, which is P (a T) for the number 1.
        spectral: The attribute.

    Attributes:
        registers: The registers of all T_k, followed by those of all T_j. A register is listed once for all of its
            numbers, and once more for each of its tensors.
        direct, projected: The numbers a_k and b_k. ``projected`` is empty where no term is projected.
        scales, scaled: The tensors c_k, and the places k that have one. Both are None where no place has one.
        modes: The pairs (f_j, c_j). c_j is None where it is 1.
        spectral: Whether every f_j is a function of the singular values, so that modes with equal ones have equal
            factors.
        layout: The places that have an a_k and those that have a b_k, as two sets of bits, for kernels that are
            compiled anew for each layout.
    """

    __slots__ = ("direct", "layout", "modes", "projected", "registers", "scaled", "scales", "spectral")

    def __init__(
        self, terms: Iterable[tuple[Key, float | Tensor, float | Tensor | None]], spectral: bool = False
    ) -> None:
        registers: list[Key] = []
        direct: list[float] = []
        projected: list[float] = []
        scales: list[Tensor] = []
        scaled: list[int] = []
        over_modes: list[tuple[Key, Tensor, Tensor | None]] = []
        places: dict[Key, int] = {}
        of_direct = of_projected = 0
        for key, a, modes in terms:
            if isinstance(modes, Tensor):
                scale = a if isinstance(a, Tensor) else None
                over_modes.append((key, modes if scale is not None or a == 1.0 else modes * a, scale))
                continue
            at = len(direct) if isinstance(a, Tensor) else places.setdefault(key, len(direct))
            if at == len(direct):
                registers.append(key)
                direct.append(0.0)
                projected.append(0.0)
            if isinstance(a, Tensor):
                scales.append(a)
                scaled.append(at)
                a = 1.0
            if modes is None:
                direct[at] += a
                of_direct |= 1 << at
            else:
                projected[at] += a * modes
                of_projected |= 1 << at
        self.registers = registers + [key for key, _, _ in over_modes]
        self.direct, self.projected = direct, projected if of_projected else []
        self.scales, self.scaled = (scales, scaled) if scaled else (None, None)
        self.modes, self.spectral = [(f, scale) for _, f, scale in over_modes], spectral
        self.layout = of_direct, of_projected

    def values(self, c_in: float) -> list[float]:
        """The numbers in the order in which kernels read them from the device: a_0 .. a_K-1, b_0 .. b_K-1, c_in."""
        return [*self.direct, *(self.projected or [0.0] * len(self.direct)), c_in]


class Weighted(NamedTuple):
    """A weight of the residual, which has a number for every mode, and encode(y).

    The weighted residual is computed from encode(y), not from H+ y. H+ y is large in modes of small singular values,
    and in a sum with those the other modes would lose their digits.

    Attributes:
        weight: The weight.
        coordinates: The coordinates encode(y).
        spectral: Whether the weight is a function of the singular values.
    """

    weight: Tensor
    coordinates: Tensor
    spectral: bool = False


class Residual(Protocol):
    """Writes ybar - P (p x + q F) to ``out``, or with ``weighted`` V weight (encode(y) - V^T (p x + q F)).

    ``terms`` are ybar, x and F. ``table`` holds p and q on the device, for a backend that reads them there.
    """

    def __call__(
        self, terms: Sequence[Tensor], p: float, q: float, out: Tensor, weighted: Weighted | None, table: Tensor | None
    ) -> None: ...


class Update(Protocol):
    """Writes the sum of a row to ``out``, and c_in times the sum to ``after``, which is None where nothing reads it.

    ``table`` holds ``row.values(c_in)`` on the device, for a backend that reads its numbers there.
    """

    def __call__(
        self,
        row: Row,
        tensors: list[Tensor],
        out: Tensor,
        after: Tensor | None,
        c_in: float,
        table: Tensor | None = None,
    ) -> None: ...


class Denoised(Protocol):
    """Returns x0hat = p x + q F, a new tensor in the dtype of x."""

    def __call__(self, x: Tensor, output: Tensor, p: float, q: float) -> Tensor: ...


class Normal(Protocol):
    """Fills ``out`` with unit noise and returns it; ``reference.normal`` defines the stream."""

    def __call__(self, out: Tensor, seeds: Tensor, samples: Tensor, draws: Tensor, step: int) -> Tensor: ...


class Ops(NamedTuple):
    """The operations of the loop, bound to one operator. They run only what ``Backend.takes`` accepts."""

    denoised: Denoised
    residual: Residual
    update: Update
    normal: Normal


class Backend(Protocol):
    """An implementation of the operations of the loop.

    Attributes:
        name: The name that ``Sampler(backend=...)`` takes.
        device_table: Whether it reads numbers from ``table``, so that one captured graph serves every plan whose rows
            have the same layout.
    """

    name: str
    device_table: bool

    def reason(self, device: torch.device) -> str | None:
        """Why it cannot run on a device, or None where it can."""
        ...

    def takes(self, operator: Operator, row: Row, dtypes: Collection[torch.dtype], elements: int) -> str | None:
        """Why its kernels do not run a row, or None where they do. The engine asks once, when it binds a plan.

        Args:
            operator: The operator of the run.
            row: The row.
            dtypes: The dtypes of the state, which comes first, of all registers, and of the network's input.
            elements: The number of elements of a batch of images.
        """
        ...

    def bind(self, operator: Operator) -> Ops:
        """The operations for one operator. Their buffers between two kernels live as long as they do."""
        ...


def outside(row: Row, dtypes: Collection[torch.dtype], most_terms: int, tensors: bool) -> str | None:
    """Why kernels that sum in float32 do not run a row, or None where they do.

    Args:
        row: The row.
        dtypes: The dtypes that ``Backend.takes`` is given.
        most_terms: The number of terms that the kernels can read.
        tensors: Whether the kernels can read coefficients that are tensors.
    """
    state, *_ = dtypes
    if state != torch.float32:
        return f"its kernels compute in torch.float32, and the state is {state}"
    foreign = [dtype for dtype in dtypes if dtype not in HALVES_AND_SINGLE]
    if foreign:
        return f"its kernels do not read {foreign[0]}"
    if row.modes and not tensors:
        return "its kernels have no coefficients over the modes"
    if row.scaled and not tensors:
        return "its kernels have no coefficients of each image or element"
    terms = len(row.registers) + bool(row.modes)
    return None if 0 < terms <= most_terms else f"its kernels take 1 to {most_terms} terms, and the row has {terms}"


def refuse_gradients(backend: str, tensors: Iterable[Tensor]) -> None:
    """Raise RuntimeError where a kernel without a derivative is given a tensor that requires grad."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        raise RuntimeError(
            f"{backend} backend: its kernels cannot be differentiated, but an input requires grad; pass x.detach() or "
            "use backend='reference'"
        )
