"""The time that a device takes, by CUDA events. Kernels are captured in a graph, so that the host does not count."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import torch

from ccfast.engine.graphs.capture import CudaCapture

__all__ = ["Timing", "called", "captured", "on_device", "seconds"]

Run = Callable[[], object]


class Timing(NamedTuple):
    """The median of several rounds, and (largest - smallest)/median, in which another process would show."""

    seconds: float
    spread: float


def captured(run: Run, device: torch.device) -> Run:
    """A run as one CUDA graph, after a warm-up on the stream of the capture; on a CPU it is the run itself."""
    if device.type != "cuda":
        return run
    capture = CudaCapture(device)
    with capture.lane():
        for _ in range(3):
            run()
        recording = capture.record(run)
    return recording.replay


def seconds(run: Run, device: torch.device, rounds: int = 7) -> Timing:
    """The seconds of a run on the clock of the device, which includes the host where the device waits for it."""
    if device.type != "cuda":
        return _timing([_wall(run) for _ in range(rounds)])
    took = []
    run()
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        took.append(begin.elapsed_time(end) / 1e3)
    return _timing(took)


def called(run: Run, device: torch.device, rounds: int = 7) -> Timing:
    """The seconds from a call on an idle device to its result, on the clock of the caller."""

    def whole() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    if device.type == "cuda":
        whole()
    return _timing([_wall(whole) for _ in range(rounds)])


def on_device(runs: Sequence[Run], device: torch.device, count: int = 20, rounds: int = 7) -> Timing:
    """The seconds that the device takes for one of ``count`` captured runs, which are these in turn."""

    def loop() -> None:
        for k in range(count):
            runs[k % len(runs)]()

    found = seconds(captured(loop, device), device, rounds)
    return Timing(found.seconds / count, found.spread)


def _timing(took: Sequence[float]) -> Timing:
    middle = median(took)
    return Timing(middle, (max(took) - min(took)) / middle)


def _wall(run: Run) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun
