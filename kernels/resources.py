"""What a compiler made of every GPU kernel (registers, memory, widths of loads), in one table for all backends.

A backend that compiles kernels for GPUs has a function ``resources(architecture)``, which returns rows of this table.
``ccfast config --kernels`` prints them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["REGISTER_FILE", "SHARED_LIMIT", "Resource", "text_table"]

REGISTER_FILE = 65536
"""The number of 32-bit registers of a multiprocessor, on every architecture from sm_80 on."""

SHARED_LIMIT = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
"""The most shared memory of a block in KiB, by architecture. A compiler need not check it."""


class Resource(NamedTuple):
    """The resources of one variant of a kernel on one architecture.

    Attributes:
        backend, kernel: The name of the backend, and that of the kernel.
        variant: The dtypes and sizes for which the kernel was compiled, in words.
        architecture: The numbers 80, 90, ... of sm_80, sm_90, ...
        threads: The number of threads of a block.
        registers: The number of registers of a thread.
        spills, stack: The bytes of spilled registers and of stack of a thread. A kernel should have none.
        shared: The bytes of shared memory of a block.
        loads, stores: The number of instructions that access global memory, by width in bits.
        barriers: The number of barriers.
    """

    backend: str
    kernel: str
    variant: str
    architecture: int
    threads: int
    registers: int
    spills: int
    stack: int
    shared: int
    loads: dict[int, int]
    stores: dict[int, int]
    barriers: int

    @property
    def blocks(self) -> int:
        """How many blocks the registers of a multiprocessor allow. It gives them to a warp 256 at a time."""
        of_a_warp = (32 * self.registers + 255) // 256 * 256
        return REGISTER_FILE // (of_a_warp * (self.threads // 32))


def text_table(resources: Iterable[Resource]) -> str:
    """The table as text: a header, and a line for every kernel."""
    head = ("kernel", "sm", "threads", "registers", "spills", "stack", "shared", "barriers", "loads", "stores")
    lines: list[tuple[str, ...]] = [head]
    for r in resources:
        numbers = (r.architecture, r.threads, r.registers, r.spills, r.stack, r.shared, r.barriers)
        name = f"{r.backend} {r.kernel} {r.variant}"
        lines.append((name, *map(str, numbers), _widths(r.loads), _widths(r.stores)))
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    sides = "<>>>>>>><<"
    rows = [[f"{cell:{side}{w}}" for cell, side, w in zip(line, sides, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(row).rstrip() for row in rows)


def _widths(counts: dict[int, int]) -> str:
    """The number of instructions of every width, such as "2x128 1x32"; the widest come first."""
    return " ".join(f"{counts[width]}x{width}" for width in sorted(counts, reverse=True))
