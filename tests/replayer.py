"""A stand-in for CUDA graphs on the CPU: it records the operations of a run, and replays them on the same tensors.

Like a graph it knows addresses and numbers, not Python: a float keeps the value that it had when it was captured, a
constant that moved to another address is not found, and an operation that would wait for the device cannot be captured.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ccfast.engine.graphs.waits import WAITS


class Recording(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = []
        self.storages = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in WAITS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {function}")
        kwargs = kwargs or {}
        known = {id(t.untyped_storage()) for t in tensors((args, kwargs))}
        result = function(*args, **kwargs)
        made = [t for t in tensors(result) if id(t.untyped_storage()) not in known]
        self.storages |= {t.untyped_storage().data_ptr(): t.untyped_storage() for t in made}
        self.operations.append((function, args, kwargs, result))
        return result

    @property
    def bytes(self):
        """The size of all tensors that the run made; none is freed, because a replay writes to each of them again."""
        return sum(storage.nbytes() for storage in self.storages.values())

    def replay(self):
        with torch.no_grad():
            for function, args, kwargs, result in self.operations:
                again = function(*args, **kwargs)
                for old, new in zip(tensors(result), tensors(again), strict=True):
                    # The result is neither a view of an argument nor written in place.
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Replayer:
    """The stand-in for ``Capture``.

    Args:
        limit: the most bytes that a capture may take.
        captures, synchronizations: how often it captured and synchronized.
    """

    def __init__(self, limit=1 << 40):
        self.device = torch.device("cpu")
        self.limit, self.captures, self.synchronizations, self.inside = limit, 0, 0, 0
        self._lock = threading.RLock()

    @contextmanager
    def lane(self):
        with self._lock:
            self.inside += 1
            try:
                yield lambda tensor: tensor
            finally:
                self.inside -= 1

    def record(self, work):
        assert self.inside
        self.captures += 1
        with Recording() as recording:
            work()
        return recording

    def synchronize(self):
        assert self.inside
        self.synchronizations += 1
