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
    lines = [f"{'kernel':<46}{'sm':>4}{'threads':>9}{'registers':>11}{'spills':>8}{'stack':>7}{'shared':>8}{'barriers':>10}"
             "  loads and stores: width in bits x instructions"]  # fmt: skip
    for r in resources:
        widths = f"{_widths(r.loads)} | {_widths(r.stores)}"
        lines.append(f"{f'{r.backend} {r.kernel} {r.variant}':<46}{r.architecture:>4}{r.threads:>9}{r.registers:>11}{r.spills:>8}"
                     f"{r.stack:>7}{r.shared:>8}{r.barriers:>10}  {widths}")  # fmt: skip
    return "\n".join(lines)


def _widths(counts: dict[int, int]) -> str:
    return " ".join(f"{width}x{counts[width]}" for width in sorted(counts, reverse=True))
