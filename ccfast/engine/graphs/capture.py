"""The primitive of the graphs, which captures a function's work on the device and repeats it on the same tensors."""

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
        bytes: The bytes of memory that the recording keeps.
    """

    bytes: int

    def replay(self) -> None:
        """Do the work again, on the tensors that it was captured with."""


class Capture(Protocol):
    """A way to capture work on one device: ``CudaCapture``, or in the tests a double that needs no device.

    Attributes:
        limit: The bytes of memory that all recordings of the device may keep.
    """

    limit: int

    @contextmanager
    def lane(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """A context for all work with graphs, which one thread enters at a time and which keeps the order of the work.

        It yields a function that hands a tensor that was made inside over to the code outside.
        """
        ...

    def record(self, work: Callable[[], object]) -> Recording:
        """Capture ``work``, or raise what stops it. It is called in the lane, where the work was done once before."""
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

    Warm-up, capture and replays all use that stream: nodes of autograd remember the stream on which they were made,
    cuBLAS has a workspace for each stream, and memory that is freed there is reused in the stream's order. The lane
    makes this stream wait for the work that the caller's stream has, and then the caller's stream wait for this one.
    """

    _capturing = threading.RLock()  # One lock serves all devices, since a process may capture one graph at a time.

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.limit = torch.cuda.get_device_properties(device).total_memory // 2

    @contextmanager
    def lane(self) -> Iterator[Callable[[Tensor], Tensor]]:
        with self._capturing, torch.cuda.device(self.device):
            outside = torch.cuda.current_stream()

            def hand_over(tensor: Tensor) -> Tensor:
                tensor.record_stream(outside)  # The caller may free it while its stream still reads it.
                return tensor

            self.stream.wait_stream(outside)
            try:
                with torch.cuda.stream(self.stream):
                    yield hand_over
            finally:
                outside.wait_stream(self.stream)

    def record(self, work: Callable[[], object]) -> Recording:
        graph = torch.cuda.CUDAGraph()
        # With "thread_local" other threads, such as loaders that pin memory, may call CUDA during the capture.
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            work()
        return CudaRecording(graph)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)
