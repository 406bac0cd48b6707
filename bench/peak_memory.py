"""The peak memory of a run outside its network, in buffers of the size of the state."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ccfast.app.benchmark.cases import Case
from ccfast.app.benchmark.steps import PreparedStep, stand_in

__all__ = ["LiveMemory", "memory_states", "state_buffers"]


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that operations made since it began and that are still alive, and their peak.

    A storage counts from the operation that returns it until it is freed. The memory that an operation uses inside
    itself, such as the work space of a Fourier transform, is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak, self._counting = 0, 0, True
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing that is made until the end of the block."""
        self._counting, before = False, self._counting
        try:
            yield
        finally:
            self._counting = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._known.add(leaf.untyped_storage())
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and (storage := leaf.untyped_storage()) not in self._known:
                self._known.add(storage)
                if self._counting:
                    self._count(storage.nbytes())
                    weakref.finalize(storage, self._count, -storage.nbytes())
        return result

    def _count(self, size: int) -> None:
        self.live += size
        self.peak = max(self.peak, self.live)


def memory_states(case: Case) -> float:
    """The least number of states that the loop can hold at once.

    These are two states, the network's input, H+ y, the cotangent and, when the loop is done, the result. An operator
    by Fourier transforms also holds two packed spectra for a while, since torch's transform has no true ``out=``. Two
    channels of an image are packed into a complex plane, so that an odd number of channels takes more.
    """
    channels = case.shape[1]
    spectra = 2 * 2 * ((channels + 1) // 2) / channels
    # Where the number of channels is even, the first spectrum lies in the state that is written.
    return 5.0 + max(1.0, spectra - (channels % 2 == 0)) if case.kind == "fourier" else 6.0


def state_buffers(case: Case, backend: str = "auto") -> float:
    """The peak memory of a first call over the size of the state, without y, F and h, which are not the loop's own."""
    memory = LiveMemory()

    def uncounted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            with memory.paused():
                return function(*args, **options)

        return call

    prepared = PreparedStep(case, uncounted(stand_in))
    restore = prepared.of_backend(backend)
    y, x_init, grad = prepared.y, prepared.x_init, torch.autograd.grad
    torch.autograd.grad = uncounted(grad)
    try:
        with memory:
            restore(y, x_init)
    finally:
        torch.autograd.grad = grad
    return memory.peak / (x_init.numel() * x_init.element_size())
