"""The launches of a run on a GPU, and the bytes that they move, counted on the CPU: nothing of them is computed.

The loop runs as it does on a GPU, with the backend "cuda". Each launch of a Triton kernel and each op of csrc/cuda is
counted in place of being run, and so is every other op of torch that is not a view, since it launches a kernel of its
own at least. What the network and the product with its Jacobian launch is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ccfast.engine.network import NetworkRun
from ccfast.kernels import cuda, triton
from ccfast.kernels.cuda import ops
from ccfast.kernels.triton import launches

__all__ = ["Count", "counted", "per_step"]

OF_AN_OP = {
    "fourier": 3,
    "separable": 3,
    "products": 3,
    "fourier_pack": 1,
    "fourier_multiply": 1,
    "fourier_alias": 1,
    "fourier_unpack": 1,
    "combine": 1,
    "finish": 1,
}
"""The launches of each op of csrc/cuda, for a batch that goes through its scratch in one part."""


FREE = ("empty", "detach", "scalar_tensor")
"""Ops of torch that launch nothing, though they are no views."""


class Count:
    """What was counted: the launches by name, and the bytes of all tensors that they were given."""

    def __init__(self) -> None:
        self.names: Counter[str] = Counter()
        self.bytes, self.on = 0, True

    def add(self, name: str, launched: int, tensors: Iterable[object]) -> None:
        if self.on:
            self.names[name] += launched
            self.bytes += sum(t.untyped_storage().nbytes() for t in leaves(tensors))

    def launch(self, call: launches.Call) -> None:
        """In place of ``Call.run``: a term that the row has no coefficient for is not read."""
        named = dict(zip((p.name for p in call.kernel.params), call.arguments, strict=True))
        read = named.get("DIRECT", -1) | named.get("PROJECTED", 0)
        terms = [t for k, t in enumerate(named.pop("terms", ())) if read >> k & 1]
        code = named.get("SCALED", 0)
        scales = {id(t): t for k, t in enumerate(named.pop("scales", None) or ()) if code >> 2 * k & 3}
        self.add(call.name, 1, [terms, list(scales.values()), list(named.values())])

    def op(self, name: str) -> Any:
        return lambda *arguments: self.add(name, OF_AN_OP[name], arguments)

    @contextmanager
    def paused(self) -> Iterator[None]:
        before, self.on = self.on, False
        try:
            yield
        finally:
            self.on = before

    def uncounted(self, function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            with self.paused():
                return function(*arguments, **named)

        return call


class Dispatch(TorchDispatchMode):
    """The ops of torch that are not views."""

    def __init__(self, count: Count) -> None:
        super().__init__()
        self.count = count

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not func.is_view and not func.__name__.startswith(FREE):
            self.count.add(f"torch {func.__name__}", 1, [args, result])
        return result


def leaves(tensors: Iterable[object]) -> Iterator[Tensor]:
    for value in tensors:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from leaves(value)


@contextmanager
def counted() -> Iterator[Count]:
    """Count instead of launching."""
    count = Count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "reason", lambda device: None)
        patch.setattr(triton, "reason", lambda device: None)
        patch.setattr(launches.Call, "run", lambda call: count.launch(call))
        for name in OF_AN_OP:
            patch.setattr(ops, name, count.op(name))
        patch.setattr(ops, "stream", lambda device: 0)
        patch.setattr(NetworkRun, "__call__", count.uncounted(NetworkRun.__call__))
        patch.setattr(torch.autograd, "grad", count.uncounted(torch.autograd.grad))
        yield count


def per_step(make: Any, y: Tensor, elements: int) -> SimpleNamespace:
    """The launches and the bytes an element of one step, from runs of two and of six steps, which ``make`` makes."""
    totals = []
    for steps in (2, 6):
        with counted() as count:
            sampler = make(steps)
            sampler(y, seed=0)
            count.names.clear()
            count.bytes = 0
            with Dispatch(count):
                sampler(y, seed=0)
            totals.append((Counter(count.names), count.bytes))
    (few, less), (many, more) = totals
    names = {name: (many[name] - few[name]) / 4 for name in many if many[name] != few[name]}
    return SimpleNamespace(launches=sum(names.values()), bytes=(more - less) / 4 / elements, names=names)
