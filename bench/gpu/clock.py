"""The time that a device takes, by CUDA events. Kernels are captured in a graph, so that the host does not count."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from ccfast.engine.graphs.capture import CudaCapture

__all__ = ["captured", "on_device", "seconds"]

Run = Callable[[], object]


def captured(run: Run, device: torch.device, count: int = 1) -> Run:
    """``count`` runs as one CUDA graph, after a warm-up on the stream of the capture; on a CPU they are a loop."""

    def loop() -> None:
        for _ in range(count):
            run()

    if device.type != "cuda":
        return loop
    capture = CudaCapture(device)
    with capture.lane():
        for _ in range(3):
            loop()
        recording = capture.record(loop)
    return recording.replay


def seconds(run: Run, device: torch.device, rounds: int = 7) -> float:
    """The median seconds of a run on the clock of the device, which includes the host where the device waits for it."""
    run()
    if device.type != "cuda":
        return median(_wall(run) for _ in range(rounds))
    took = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        took.append(begin.elapsed_time(end) / 1e3)
    return median(took)


def on_device(run: Run, device: torch.device, count: int = 20, rounds: int = 7) -> float:
    """The seconds that the device takes for one of ``count`` captured runs."""
    return seconds(captured(run, device, count), device, rounds) / count


def _wall(run: Run) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun
