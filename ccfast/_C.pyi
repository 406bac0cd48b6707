"""The compiled module (csrc/bindings.cpp)."""

def build_info() -> dict[str, object]:
    """Compiler, instruction sets of the loops, CUDA architectures, and the torch it was built against and is for."""

def philox(counter: list[int], key: int) -> list[int]:
    """Philox 4x32-10: the four words of a counter of four words and a 64-bit key, as the noise kernel computes them."""

def kernels() -> list[tuple[str, str, int, int, int, int, int, int, int]]:
    """Kernels of the GPU, as nvcc compiled them for each architecture; empty without CUDA code.

    Kernel, variant, architecture, threads of a block, registers of a thread, bytes spilled, stack, shared memory of a
    block (at most), barriers.
    """
