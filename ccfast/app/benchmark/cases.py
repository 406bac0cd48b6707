"""The registry of the benchmark, with one row for each kernel and size that is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...operators import AveragePooling, Bicubic, FourierBlur, GaussianBlur, Grayscale, Inpainting, Operator

__all__ = ["BATCHES", "KINDS", "LOCAL", "Case", "registry"]

BATCHES = (1, 8)
LOCAL = ("mask", "block", "channel")
"""Kinds of operators whose every output depends on few inputs; their kernels make one pass, which memory bounds."""


def _mask(side: int) -> Inpainting:
    mask = torch.rand(1, side, side, generator=torch.Generator().manual_seed(0)) < 0.5
    return Inpainting(mask, shape=(3, side, side))


def _motion(side: int) -> FourierBlur:
    return FourierBlur((3, side, side), np.eye(9) / 9.0)


KINDS: dict[str, tuple[str, Callable[[int], Operator]]] = {
    "mask": ("half of the pixels", _mask),
    "block": ("average pooling x4", lambda side: AveragePooling((3, side, side), 4)),
    "channel": ("greyscale", lambda side: Grayscale((3, side, side))),
    "banded": ("bicubic x4", lambda side: Bicubic((3, side, side), 4)),
    "lowrank": ("Gaussian blur", lambda side: GaussianBlur((3, side, side))),
    "fourier": ("motion blur", _motion),
}
"""For each word for the kernels of an operator, its name in tables and a function that makes it for images of a side.

The operator kind "separable" has two words, since kernels take a separable operator as banded or as of low rank."""


@dataclass(frozen=True)
class Case:
    """One operation on images of one size, which is timed.

    Attributes:
        op: "residual", "update" (the row of ``Conjugate()``, whose terms are x, F, r, h and P h), "one_projection" (x,
            F, r and h), "lincomb" (the row of DDIM, x and F), "noise", "step" (a step outside the network), "photo" (a
            step with the bundled prior) or "plan" (making a sampler).
        kind: a word of ``KINDS``, or "any" for an op that needs no operator.
        batch, side: images are (batch, 3, side, side).
        dtype: the dtype of the network's input and of F, r and h; the state is float32.
    """

    op: str
    kind: str
    batch: int = 1
    side: int = 256
    dtype: torch.dtype = torch.float32

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.batch, 3, self.side, self.side)

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"{self.op}-{self.kind}-{shape}" + ("" if self.dtype == torch.float32 else f"-{self.dtype_name}")

    def operator(self) -> Operator:
        """H, which is the mask for an op that needs no operator."""
        return KINDS[self.kind if self.kind in KINDS else "mask"][1](self.side)


def registry(side: int = 256, batches: Sequence[int] = BATCHES, short: bool = False) -> list[Case]:
    """All cases; ``short`` leaves out those that users of ``ccfast bench`` do not need."""
    rows = []
    for batch in batches:
        for kind in KINDS:
            rows += [Case(op, kind, batch, side) for op in ("residual", "update")]
            if kind in LOCAL and not short:
                rows += [Case(op, kind, batch, side, torch.bfloat16) for op in ("residual", "update")]
        if not short:
            rows += [Case("one_projection", "any", batch, side), Case("lincomb", "any", batch, side)]
        rows.append(Case("noise", "any", batch, side))
        rows += [Case("step", kind, batch, side) for kind in KINDS]
    if not short:
        rows += [Case("plan", kind, 1, side) for kind in ("banded", "mask")]
    return rows
