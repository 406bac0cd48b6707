"""A row of a plan as kernels take it, and what every backend of kernels is: ``Backend`` binds ``Ops`` to an operator.

    out = sum_k c_k a_k T_k + P sum_k c_k b_k T_k + V sum_j f_j V^T (c_j T_j),        next = c_in out

T_k and T_j are the tensors that a row is called with, a_k and b_k numbers. c_k is 1, or a tensor: one number of every
image, (B,), or one of every element, (C, H, W) or (B, C, H, W) with any dimension 1. f_j is a tensor over the modes of
the operator.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..operators import Operator

__all__ = ["Backend", "Key", "Ops", "Row", "Weighted", "outside", "refuse_gradients"]

Key = tuple[str, int]
"""A register and its age: ("x", 0) is the state, ("F", 2) the network's output of two steps ago."""

HALVES_AND_SINGLE = frozenset((torch.float32, torch.bfloat16, torch.float16))
"""The dtypes that compiled kernels read; they sum in float32."""


class Row:
    """The terms of a row, sorted by how a kernel takes them.

    Args:
        terms: (register, a, modes): a T where modes is None, else V diag(modes) V^T (a T), where the number 1 makes P.
            ``a`` and ``modes`` are numbers or tensors.

    Attributes:
        registers: what T_k and then T_j are. A register comes once for its numbers, and once more for each tensor.
        direct, projected: a_k and b_k; ``projected`` is empty where nothing is projected.
        scales, scaled: the tensors c_k and their places k; None where there are none.
        modes: (f_j, c_j) of the terms over the modes, whose registers are the last; c_j is None where it is 1.
        layout: (bit set of the k with an a_k, bit set of those with a b_k), for kernels that compile one variant each.
    """

    __slots__ = ("direct", "layout", "modes", "projected", "registers", "scaled", "scales")

    def __init__(self, terms: Iterable[tuple[Key, float | Tensor, float | Tensor | None]]) -> None:
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
        self.modes = [(f, scale) for _, f, scale in over_modes]
        self.layout = of_direct, of_projected

    def values(self, c_in: float) -> list[float]:
        """The numbers as kernels read them from a device: a_0 .. a_K-1, b_0 .. b_K-1, c_in."""
        return [*self.direct, *(self.projected or [0.0] * len(self.direct)), c_in]


Weighted = tuple[Tensor, Tensor]
"""A weight of the residual, one number a mode, and encode(y).

Where singular values are small H+ y is large, and the digits of the other modes would be lost in it.
"""


class Residual(Protocol):
    """out = ybar - P (p x + q F) of the tensors ybar, x and F; or weighted, V weight (encode(y) - V^T (p x + q F)).

    ``table`` holds p and q on the device, for a backend that reads them there.
    """

    def __call__(
        self,
        tensors: Sequence[Tensor],
        p: float,
        q: float,
        out: Tensor,
        weighted: Weighted | None = None,
        table: Tensor | None = None,
    ) -> None: ...


class Update(Protocol):
    """A row: ``out`` and, where there is a next input, ``after`` = c_in out.

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
    """x0hat = p x + q F, a new tensor in the dtype of x."""

    def __call__(self, x: Tensor, output: Tensor, p: float, q: float) -> Tensor: ...


class Normal(Protocol):
    """Fills ``out`` with unit noise and returns it; ``reference.normal`` defines the stream."""

    def __call__(self, out: Tensor, seeds: Tensor, samples: Tensor, draws: Tensor, step: int) -> Tensor: ...


class Ops(NamedTuple):
    """The operations of the loop, bound to one operator. They take what ``Backend.takes`` accepted and nothing else."""

    denoised: Denoised
    residual: Residual
    update: Update
    normal: Normal


class Backend(Protocol):
    """Who runs the operations of the loop.

    Attributes:
        name: its word in ``Sampler(backend=...)``.
        device_table: whether it reads numbers from ``table``, so that one captured graph serves every plan whose rows
            have the same layout.
    """

    name: str
    device_table: bool

    def reason(self, device: torch.device) -> str | None:
        """Why it cannot run on a device, or None."""
        ...

    def takes(self, operator: Operator, row: Row, dtypes: Collection[torch.dtype], elements: int) -> str | None:
        """Why its kernels do not run a row, or None. It is asked once, when a plan is bound.

        Args:
            dtypes: all that occur, of the state, the registers and the network's input. The first is the state's.
            elements: numbers in a batch of images.
        """
        ...

    def bind(self, operator: Operator) -> Ops:
        """The operations for one operator; buffers that they need between two kernels live as long as they."""
        ...


def outside(row: Row, dtypes: Collection[torch.dtype], most_terms: int, tensors: bool) -> str | None:
    """Why kernels that sum in float32 do not run a row, or None.

    Args:
        dtypes: as for ``Backend.takes``.
        most_terms: how many terms they read.
        tensors: whether coefficients may be tensors.
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
