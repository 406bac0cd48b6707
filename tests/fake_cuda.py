"""A stand-in for the parts of torch.cuda that captures use, which fails and is damaged as torch is.

A capture that was invalidated raises at its end, before the allocator and the generator of random numbers are told: as
long as the allocator knows of a capture it does not empty its cache, and the generator refuses to be used.
"""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import torch

ERROR = "CUDA error: operation failed due to a previous error during capture"


class FakeCuda:
    """The state of one process.

    Attributes:
        captures: The pools that the allocator believes to be captured to.
        pools: How many users each pool has.
        drawing: Whether the generator believes to be captured.
        active: Whether a stream is being captured.
        invalid: Whether the capture met an operation that it cannot hold.
        empties: How often the cache was emptied.
        graphs: The number of graphs that are alive.
    """

    def __init__(self, monkeypatch):
        self.captures, self.pools, self.drawing, self.active, self.invalid = [], Counter(), False, False, False
        self.empties, self.graphs, self.numbers, self.fails_to_begin = 0, 0, itertools.count(1), False
        fake, ones = self, torch.ones

        class CUDAGraph:
            def __init__(self):
                self.own, self.ended = None, False
                fake.graphs += 1

            def capture_begin(self, pool=None, capture_error_mode="global", **keywords):
                if fake.fails_to_begin:
                    raise RuntimeError("CUDA error: out of memory")
                assert not fake.active, "a process may capture one graph at a time"
                self.own = pool or (next(fake.numbers), 0)
                assert self.own not in fake.captures
                fake.captures.append(self.own)
                fake.pools[self.own] += 1
                fake.active = fake.drawing = True

            def capture_end(self):
                fake.active, invalid, fake.invalid = False, fake.invalid, False
                if invalid:
                    raise RuntimeError(ERROR)
                fake.end(0, self.own)
                fake.drawing, self.ended = False, True

            def pool(self):
                if not self.ended:
                    raise RuntimeError("Called CUDAGraph::pool() without a preceding successful capture.")
                return self.own

            def replay(self):
                assert self.ended

            def __del__(self):
                fake.graphs -= 1
                if self.ended:
                    fake.release(0, self.own)

        def patch(where, name, value):
            monkeypatch.setattr(where, name, value, raising=False)

        patch(torch.cuda, "CUDAGraph", CUDAGraph)
        patch(torch.cuda, "graph_pool_handle", lambda: (0, next(self.numbers)))
        patch(torch.cuda, "memory_snapshot", lambda: [{"total_size": 7, "segment_pool_id": p} for p in self.pools])
        patch(torch.cuda, "synchronize", lambda *arguments: None)
        patch(torch.cuda, "empty_cache", self.empty_cache)
        patch(torch.cuda, "Stream", Stream)
        patch(torch.cuda, "stream", entered)
        patch(torch.cuda, "device", entered)
        patch(torch.cuda, "current_stream", lambda *arguments: Stream(None))
        patch(torch.cuda, "current_device", lambda: 1)
        patch(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=1 << 40))
        patch(torch, "ones", lambda *sizes, **keywords: ones(*sizes))
        patch(torch._C, "_cuda_endAllocateToPool", self.end)
        patch(torch._C, "_cuda_releasePool", self.release)
        patch(torch._C, "_host_emptyCache", lambda: None)

    def wait(self):
        """An operation that waits for the device."""
        if self.active:
            self.invalid = True
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    def draw(self):
        """An operation that draws random numbers."""
        if self.drawing != self.active:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")

    def empty_cache(self):
        if self.captures:
            raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")
        self.empties += 1

    def end(self, index, pool):
        if pool not in self.captures:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.captures.remove(pool)

    def release(self, index, pool):
        if self.pools[pool] < 1:
            raise RuntimeError("uc >= 0 INTERNAL ASSERT FAILED")
        self.pools[pool] -= 1


class Stream:
    def __init__(self, device):
        self.device = device

    def wait_stream(self, other):
        pass


@contextmanager
def entered(value):
    yield value
