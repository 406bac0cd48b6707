"""The capture lint: what a run does that a CUDA graph cannot hold, found on the CPU."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ccfast.engine.graphs.waits import INDEXING, WAITS

READS = ("tolist", "numpy", "cpu", "__array__")
"""Methods of a tensor that wait for a device; on the CPU they reach no operation."""


class Lint(TorchDispatchMode):
    """A dispatch mode that records the operations of a run.

    Args:
        inputs: the tensors that the run is given.
        before: the lint of an earlier run, whose tensors are known to this one, too.

    Attributes:
        operations: all operations, in order.
        waits: operations that wait for the device, or whose result has a shape that depends on values.
        strangers: operations that read a tensor made on the host during the run (from a list or numpy), which would
            have to be copied.
        allocations: (step, operation) of every operation of the loop that returns new memory, except those of the
            network and the product.
        step: the step of the loop, counted by ``network``.
    """

    def __init__(self, inputs, before=None):
        super().__init__()
        self.operations, self.waits, self.strangers, self.allocations, self.step = [], [], [], [], -1
        self._given = dict(before._given) if before else {}
        self._given |= {s.data_ptr(): s for s in map(storage, inputs)}
        self._known, self._first, self._library, self._looping = dict(self._given), before is None, False, False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        read = {s.data_ptr(): s for s in map(storage, tensors((args, kwargs)))}
        new = {pointer: s for pointer, s in read.items() if pointer not in self._known}
        if self._first:
            self._given |= new
        elif new:
            self.strangers.append(function)
        masks = function in INDEXING and any(t.dtype in (torch.bool, torch.uint8) for t in tensors(args[1]))
        if function in WAITS or masks:
            self.waits.append(function)
        result = function(*args, **kwargs)
        made = {s.data_ptr(): s for s in map(storage, tensors(result)) if s.data_ptr() not in read}
        if made and self._looping and not self._library:
            self.allocations.append((self.step, function))
        self._known |= read | made  # A tensor that is kept here cannot free its address.
        self.operations.append(function)
        return result

    @contextmanager
    def library(self):
        """A context in which allocations are not counted as the loop's."""
        self._library, before = True, self._library
        try:
            yield
        finally:
            self._library = before

    def of_library(self, function):
        def call(*args, **kwargs):
            with self.library():
                return function(*args, **kwargs)

        return call

    def loop(self, run):
        """A wrapper of a program's ``run``, inside which allocations are counted."""

        def call(*args, **kwargs):
            self._looping = True
            try:
                return run(*args, **kwargs)
            finally:
                self._looping = False

        return call

    def network(self, x, t):
        self.step += 1
        with self.library():
            return torch.tanh(x) * 0.5 + 1e-4 * t.reshape(-1, *[1] * (x.ndim - 1)) * x

    @contextmanager
    def watching(self, monkeypatch):
        """A context that enters the mode, and also records the tensor methods that no dispatched operation shows."""

        def reads(name):
            def method(tensor, *args, **kwargs):
                self.waits.append(name)
                raise AssertionError(f"{name} waits for the device")

            return method

        with monkeypatch.context() as patch, self:
            for name in READS:
                patch.setattr(torch.Tensor, name, reads(name))
            yield self


def tensors(tree):
    """The tensors among an operation's arguments or results, found faster than by torch's general pytree functions."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (tuple, list)):
        return []
    return [tensor for leaf in tree for tensor in tensors(leaf)]


def storage(tensor):
    return tensor.untyped_storage()
