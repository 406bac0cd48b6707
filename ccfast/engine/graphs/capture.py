"""The primitive of the graphs, which captures a function's work on the device and repeats it on the same tensors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Protocol

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
        device: The device.
        limit: The bytes of memory that all recordings of the device may keep.
    """

    device: torch.device
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

    def __init__(self, graph: torch.cuda.CUDAGraph, pool: tuple[int, int]) -> None:
        self.graph = graph
        segments = torch.cuda.memory_snapshot()
        self.bytes = sum(s["total_size"] for s in segments if tuple(s["segment_pool_id"]) == tuple(pool))

    def replay(self) -> None:
        self.graph.replay()


class CudaCapture:
    """Capture by CUDA graphs, on one stream of its own for each device.

    Warm-up, capture and replays all use that stream: nodes of autograd remember the stream on which they were made,
    cuBLAS has a workspace for each stream, and memory that is freed there is reused in the stream's order. The lane
    makes this stream wait for the work that the caller's stream has, and then the caller's stream wait for this one.
    Each device has a lane of its own, so that a capture on one device delays no replay on another.

    Args:
        device: The CUDA device; without an index it is the present one.
    """

    _recording = threading.Lock()  # A process may capture one graph at a time, on whichever device.
    _failed: ClassVar[list[torch.cuda.CUDAGraph]] = []

    def __init__(self, device: torch.device) -> None:
        self.device = indexed(device)
        self.stream = torch.cuda.Stream(self.device)
        self.limit = torch.cuda.get_device_properties(self.device).total_memory // 2
        self._lane = threading.RLock()

    @contextmanager
    def lane(self) -> Iterator[Callable[[Tensor], Tensor]]:
        with self._lane, torch.cuda.device(self.device):
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
        pool = torch.cuda.graph_pool_handle()  # A pool that the graph made would be out of reach where it fails.
        graph = torch.cuda.CUDAGraph()
        with self._recording:
            try:
                self._capture(graph, pool, work)
            except BaseException:
                self._recover(graph, pool)
                raise
        return CudaRecording(graph, pool)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def _capture(self, graph: torch.cuda.CUDAGraph, pool: Any, work: Callable[[], object]) -> None:
        # With "thread_local" other threads, such as loaders that pin memory, may call CUDA during the capture.
        with torch.cuda.graph(graph, pool=pool, stream=self.stream, capture_error_mode="thread_local"):
            work()

    def _recover(self, graph: torch.cuda.CUDAGraph, pool: tuple[int, int]) -> None:
        """Put torch right after a capture that failed.

        ``capture_end`` raises before it tells the allocator that the capture is over. The allocator would look for
        captures at every allocation from then on, defer frees for ever, and refuse to empty its cache; the device's
        generator of random numbers would refuse to be used. The first is told here. The second is put right by a
        capture that ends well.
        """
        try:
            graph.pool()
        except RuntimeError:
            pass
        else:
            return  # The capture has ended, and the work alone has failed.
        self._failed.append(graph)  # The allocator of pinned memory still calls a function of it.
        with suppress(RuntimeError):  # The capture may not have begun.
            torch._C._cuda_endAllocateToPool(self.device.index, pool)
        with suppress(RuntimeError):
            torch._C._cuda_releasePool(self.device.index, pool)
        with suppress(RuntimeError):  # Where the device itself is lost, the error that came first is the one to see.
            torch.cuda.synchronize(self.device)
            one = torch.ones(1, device=self.device)
            self._capture(torch.cuda.CUDAGraph(), None, lambda: one.add_(1.0))


def indexed(device: torch.device) -> torch.device:
    """The CUDA device with its index, which is that of the present device where it has none."""
    return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
