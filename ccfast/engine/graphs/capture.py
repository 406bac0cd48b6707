"""The primitive under the graphs: capture the work of a function on the device, repeat it on the same tensors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Capture", "CudaCapture", "Recording"]


class Recording(Protocol):
    """Work that was captured.

    Attributes:
        bytes: of memory that it keeps for itself.
    """

    bytes: int

    def replay(self) -> None:
        """Do the work again, on the tensors that it was captured with."""


class Capture(Protocol):
    """How work is captured on one device; ``CudaCapture``, and in the tests a double that needs no device.

    Attributes:
        limit: bytes that all recordings of the device may keep.
    """

    limit: int

    @contextmanager
    def lane(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """Where everything about graphs happens, one user at a time and in the order of its work on the device.

        Yields a function that hands a tensor made inside over to the code outside.
        """
        ...

    def record(self, work: Callable[[], object]) -> Recording:
        """Capture ``work``; raises whatever stops it. Called in the lane, after the work was done there before."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has done everything."""


class CudaRecording:
    """A torch.cuda.CUDAGraph and the size of its private memory pool."""

    def __init__(self, graph: torch.cuda.CUDAGraph) -> None:
        self.graph = graph
        segments = torch.cuda.memory_snapshot()
        self.bytes = sum(s["total_size"] for s in segments if tuple(s["segment_pool_id"]) == tuple(graph.pool()))

    def replay(self) -> None:
        self.graph.replay()


class CudaCapture:
    """Capture by CUDA graphs, on one stream of its own for each device.

    Warm-up, capture and replays all use that stream: nodes of autograd remember the stream they were made on, cuBLAS
    has its workspace by the stream, and memory that is freed there is taken again in the stream's order. The lane
    orders it after what the caller's stream was given before, and the caller's stream after it.
    """

    _capturing = threading.RLock()  # of all devices: one capture at a time in a process

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.limit = torch.cuda.get_device_properties(device).total_memory // 2

    @contextmanager
    def lane(self) -> Iterator[Callable[[Tensor], Tensor]]:
        with self._capturing, torch.cuda.device(self.device):
            outside = torch.cuda.current_stream()

            def hand_over(tensor: Tensor) -> Tensor:
                tensor.record_stream(outside)  # the caller frees it when that stream may still read it
                return tensor

            self.stream.wait_stream(outside)
            try:
                with torch.cuda.stream(self.stream):
                    yield hand_over
            finally:
                outside.wait_stream(self.stream)

    def record(self, work: Callable[[], object]) -> Recording:
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads go on with what they do, loaders that pin memory for example
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            work()
        return CudaRecording(graph)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)
