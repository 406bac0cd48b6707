"""How each kernel is launched: a static table by kernel and size. ``bench/tune_triton.py`` measures it on a GPU.

Four elements a thread, since those of a float32 tensor are one load of 128 bits and those of a half one of 64; with
eight, tensors of both widths would be exchanged between threads through shared memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["LAUNCHES", "SMALL", "VECTOR", "Call", "Launch", "launch", "units"]

VECTOR = 4
SMALL = 1 << 20
"""Elements of a batch up to which the launch fills the processors with blocks of fewer threads."""


class Launch(NamedTuple):
    """Warps of a block, and VECTOR times as many elements of a row of its tile as it has threads."""

    warps: int

    @property
    def block(self) -> int:
        return 32 * VECTOR * self.warps


LAUNCHES: dict[str, tuple[Launch, Launch]] = {
    "lincomb": (Launch(1), Launch(4)),
    "mask": (Launch(1), Launch(4)),
    "block": (Launch(1), Launch(4)),
    "channel": (Launch(1), Launch(4)),
    "normal": (Launch(1), Launch(4)),
}
"""Kernel -> launch of a batch of up to SMALL elements, and of a larger one. By reasoning, not measured yet."""


def launch(kernel: str, elements: int) -> Launch:
    """The launch of a kernel for a batch with so many elements."""
    return LAUNCHES[kernel][elements > SMALL]


def units(size: int) -> tuple[int, int]:
    """(units, UNIT) with size = units * UNIT: UNIT is known when a kernel is compiled, and 4 lets it load vectors."""
    return (size // VECTOR, VECTOR) if size % VECTOR == 0 else (size, 1)


class Call(NamedTuple):
    """A kernel with all that it is given, to be launched now, or to be compiled without a GPU."""

    name: str
    kernel: Any
    programs: int
    warps: int
    arguments: tuple[Any, ...]
    fusion: bool = True  # of multiplications and additions

    def run(self) -> None:
        """Launch on the current stream of the device of the output, which is the first argument."""
        out: Tensor = self.arguments[0]
        with torch.cuda.device_of(out):
            self.kernel[(self.programs,)](*self.arguments, num_warps=self.warps, enable_fp_fusion=self.fusion)
