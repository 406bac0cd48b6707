"""The launch of each kernel, from a static table by kernel and size, which ``bench/tune_triton.py`` measures on a GPU.

A thread takes four elements, which are one load of 128 bits of a float32 tensor, or one of 64 bits of a half-precision
tensor. With eight, rows that mix both would exchange elements between threads through shared memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["LAUNCHES", "SMALL", "VECTOR", "Call", "Launch", "launch", "units"]

VECTOR = 4
"""The elements of a thread."""

SMALL = 1 << 20
"""The most elements of a batch that is launched in blocks of fewer threads, so that they fill the processors."""


class Launch(NamedTuple):
    """The number of warps of a block, which takes VECTOR elements of a row of its tile for every thread."""

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
"""The launches of each kernel for batches of up to SMALL elements and for larger ones.

They are set by reasoning and have not been tuned on a GPU.
"""


def launch(kernel: str, elements: int) -> Launch:
    """The launch of a kernel for a batch with so many elements."""
    return LAUNCHES[kernel][elements > SMALL]


def units(size: int) -> tuple[int, int]:
    """(units, UNIT) with size = units * UNIT. A kernel is compiled for UNIT, and loads vectors where it is 4."""
    return (size // VECTOR, VECTOR) if size % VECTOR == 0 else (size, 1)


class Call(NamedTuple):
    """A kernel with its arguments, to be launched, or to be compiled without a GPU.

    Attributes:
        name: The name of the kernel in ``LAUNCHES``.
        kernel: The jitted function.
        programs: The number of programs that are launched.
        warps: The number of warps of a program.
        arguments: The arguments in the kernel's order. The first one is the output.
        fusion: Whether the compiler may fuse multiplications and additions.
    """

    name: str
    kernel: Any
    programs: int
    warps: int
    arguments: tuple[Any, ...]
    fusion: bool = True

    def run(self) -> None:
        """Launch the kernel on the current stream of the output's device."""
        out: Tensor = self.arguments[0]
        with torch.cuda.device_of(out):
            self.kernel[(self.programs,)](*self.arguments, num_warps=self.warps, enable_fp_fusion=self.fusion)
