"""What a compiler made of a GPU kernel: registers, memory, widths of loads and stores. One table for all backends.

A backend whose kernels are compiled for GPUs has a function ``resources(architecture)`` that returns these rows;
``ccfast config --kernels`` prints them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["REGISTER_FILE", "SHARED_LIMIT", "Resource", "text_table"]

REGISTER_FILE = 65536
"""32-bit registers of a multiprocessor, on every architecture from sm_80 on."""

SHARED_LIMIT = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
"""Largest shared memory of one block in KiB, by architecture; a compiler need not check it."""


class Resource(NamedTuple):
    """One kernel, in one of its variants, for one architecture.

    Attributes:
        backend, kernel: who launches it, and its name.
        variant: what it was compiled for.
        architecture: 80, 90, ... for sm_80, sm_90, ...
        threads: of a block.
        registers: of a thread.
        spills, stack: bytes a thread, of which a kernel should have none.
        shared: bytes of a block.
        loads, stores: instructions to global memory, by width in bits.
        barriers: of the block.
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
        """Blocks of a multiprocessor that its registers allow, which it hands out 256 at a time to a warp."""
        of_a_warp = (32 * self.registers + 255) // 256 * 256
        return REGISTER_FILE // (of_a_warp * (self.threads // 32))


def text_table(resources: Iterable[Resource]) -> str:
    """One line a kernel."""
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
    """Instructions x bits."""
    return " ".join(f"{counts[width]}x{width}" for width in sorted(counts, reverse=True))
