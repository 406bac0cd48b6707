"""``python -m bench.tune_triton``: time the Triton kernels with every launch, and print the best launch table.

The command is run on the GPU that the table is for, since the library itself never tunes. Every launch has to pass a
gate against the reference in float64 before it is timed. The printed table goes into LAUNCHES of
``kernels/triton/launches.py``.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from ccfast.app.benchmark.prepared_cases import GateError
from ccfast.engine import backends
from ccfast.kernels import reference
from ccfast.kernels import triton as backend
from ccfast.kernels.row import Row
from ccfast.operators import AveragePooling, Denoising, Grayscale, Inpainting
from ccfast.operators.operator import Operator
from ccfast.testing import TOLERANCE, relative_error

__all__ = ["Case", "cases", "check", "choose", "launches_of", "main"]

WARPS = (1, 2, 4, 8)
CALLS = 20
"""The number of calls in one CUDA graph, so many that launching it costs next to nothing."""
SMALL, LARGE = (1, 256), (8, 512)
"""The batch and the side of the images, for the two sizes of the table."""

ALONE = [(("x", 0), 0.9, None), (("F", 0), -0.4, None), (("r", 0), 0.7, None), (("h", 0), 1.3, None)]
COMMON = Row([*ALONE, (("h", 0), -2.1, 1.0)])
"""The row of the noiseless conjugate sampler. ``ALONE`` is the same without its last term, P h."""


class Case(NamedTuple):
    """A kernel on one input: ``run`` moves ``bytes`` and writes all of ``out``, which then has to be ``truth``."""

    kernel: str
    name: str
    run: Callable[[], object]
    out: Tensor
    truth: Tensor
    bytes: int


def cases(batch: int, side: int, device: torch.device | str) -> Iterator[Case]:
    """Every kernel on a batch of images, with a bfloat16 network."""
    shape = (3, side, side)
    mask = torch.rand(1, side, side, generator=torch.Generator().manual_seed(0)) < 0.6
    yield _update("lincomb", "no P", Row(ALONE), Denoising(shape), batch, device)
    yield _update("mask", "shared", COMMON, Inpainting(mask, shape), batch, device)
    yield _update("mask", "per image", COMMON, Inpainting(mask.expand(batch, *shape)), batch, device)
    for factor in (2, 4, 8, 16):
        yield _update("block", f"{factor}x{factor}", COMMON, AveragePooling(shape, factor), batch, device)
    yield _update("channel", "3 channels", COMMON, Grayscale(shape), batch, device)
    out = torch.full((batch, *shape), math.nan, device=device)
    words = torch.arange(batch, device=device)
    truth = reference.normal(torch.empty(out.shape), words.cpu(), words.cpu(), words.cpu(), 1)
    normal = backend.bind(Denoising(shape)).normal
    yield Case("normal", "fp32", lambda: normal(out, words, words, words, 1), out, truth, 4 * out.numel())


def _update(kernel: str, name: str, row: Row, operator: Operator, batch: int, device: torch.device | str) -> Case:
    shape, generator = (batch, *operator.shape), torch.Generator().manual_seed(1)
    dtypes = {"x": torch.float32, "F": torch.bfloat16, "r": torch.bfloat16, "h": torch.bfloat16}
    tensors = {name: torch.randn(shape, generator=generator).to(device, dtype) for name, dtype in dtypes.items()}
    out = torch.full(shape, math.nan, device=device)
    following = torch.empty(shape, dtype=torch.bfloat16, device=device)
    truth = torch.empty(shape, dtype=torch.float64)
    terms = [tensors[name] for name, _ in row.registers]
    reference.update(operator, row, [term.cpu().double() for term in terms], truth, None, 1.0)
    table = torch.tensor(row.values(1.0), dtype=torch.float32, device=device)
    update = backend.bind(operator).update
    moved = sum(t.numel() * t.element_size() for t in (*terms, out, following))
    return Case(kernel, name, lambda: update(row, terms, out, following, 1.0, table=table), out, truth, moved)


def check(case: Case) -> None:
    """Run a case, and raise GateError unless its result is the reference's."""
    case.out.fill_(math.nan)
    case.run()
    error = relative_error(case.out.cpu(), case.truth)
    if not error <= TOLERANCE[torch.float32]:
        raise GateError(f"{case.kernel} {case.name}: relative error {error:.3g}, allowed is {TOLERANCE[torch.float32]}")


@contextmanager
def launches_of(kernel: str, warps: int) -> Iterator[None]:
    """Until the end of the block, launch the kernel with so many warps, whatever the size."""
    from ccfast.kernels.triton.launches import LAUNCHES, Launch

    kept = LAUNCHES[kernel]
    LAUNCHES[kernel] = (Launch(warps), Launch(warps))
    try:
        yield
    finally:
        LAUNCHES[kernel] = kept


def measure(case: Case, rounds: int) -> float:
    """The seconds of one call, from the median of replays of a graph of ``CALLS`` calls."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        case.run()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(CALLS):
            case.run()
    times = []
    for _ in range(rounds + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e-3 / CALLS)
    return statistics.median(times[1:])  # The first replay also uploads the graph.


def choose(times: Mapping[str, Mapping[int, float]]) -> int:
    """The number of warps whose times have the least product over the cases of one kernel.

    ``times`` holds seconds by the name of the case and then by the number of warps.
    """
    warps = next(iter(times.values()))
    return min(warps, key=lambda w: math.prod(of_case[w] / min(of_case.values()) for of_case in times.values()))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.tune_triton", description="The best launch of each kernel.")
    parser.add_argument("--rounds", type=int, default=31, help="replays of each graph (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if not torch.cuda.is_available() or not backends.can_run("triton", "cuda"):
        print("bench.tune_triton: error: device: must be a CUDA device with triton, got none", file=sys.stderr)
        return 2
    best: dict[str, list[int]] = {}
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; GB/s with {', '.join(map(str, WARPS))} warps")
    for size in (SMALL, LARGE):
        times: dict[str, dict[str, dict[int, float]]] = {}
        for case in cases(*size, "cuda"):
            measured = times.setdefault(case.kernel, {}).setdefault(case.name, {})
            for warps in WARPS:
                with launches_of(case.kernel, warps):
                    check(case)
                    measured[warps] = measure(case, arguments.rounds)
            speeds = "".join(f"{case.bytes / seconds * 1e-9:9.0f}" for seconds in measured.values())
            print(f"{size[0]}x3x{size[1]}x{size[1]:<6}{case.kernel} {case.name:<14}{speeds}")
        for kernel, of_kernel in times.items():
            best.setdefault(kernel, []).append(choose(of_kernel))
    print("\nLAUNCHES: dict[str, tuple[Launch, Launch]] = {")
    for kernel, (small, large) in best.items():
        print(f'    "{kernel}": (Launch({small}), Launch({large})),')
    print("}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
